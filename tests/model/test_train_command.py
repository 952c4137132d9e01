"""train.py as a command: what it prints, writes and refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
import train
from classifier.jobs import METRICS
from classifier.mistake import Mistake
from classifier.weights import read_safetensors
from PIL import Image

TINY = ("--weights", "none", "--backbone", "shufflenet_v2_x0_5", "--image-size", 32, "--epochs", 1)


@pytest.fixture
def folders(tmp_path):
    return ("--model-dir", tmp_path / "model", "--output-data-dir", tmp_path / "output")


def test_the_default_recipe_learns_from_scratch(trained):
    assert trained.metrics["test_accuracy"] >= 0.9  # Chance is a third; the 60 test pictures were never seen.
    assert trained.metrics["pictures"]["test"] == 60


def test_metrics_json_agrees_with_itself(trained):
    metrics = trained.metrics
    assert {"validation_accuracy", "test_accuracy", "epochs", "seconds"} <= metrics.keys()
    matrix = metrics["confusion_matrix"]["rows_true_columns_predicted"]
    right = sum(matrix[index][index] for index in range(3))
    assert right / 60 == pytest.approx(metrics["test_accuracy"])
    assert [sum(row) for row in matrix] == [20, 20, 20]
    assert list(metrics["per_class"]) == ["chequered", "horizontal", "vertical"]
    assert metrics["epochs"] == len(metrics["history"]) and metrics["seconds"] > 0
    best = metrics["history"][metrics["best_epoch"] - 1]
    assert best["validation_loss"] == min(epoch["validation_loss"] for epoch in metrics["history"])
    assert best["validation_accuracy"] == metrics["validation_accuracy"]


def test_the_tuners_patterns_read_every_epoch_and_last_the_kept_one(trained):
    found = {name: [float(v) for v in re.findall(regex, trained.stdout)] for name, regex in METRICS.items()}
    history = trained.metrics["history"]
    assert found["validation_loss"][:-1] == pytest.approx([e["validation_loss"] for e in history], abs=1e-6)
    assert found["validation_loss"][-1] == pytest.approx(trained.metrics["validation_loss"], abs=1e-6)
    assert found["test_accuracy"] == pytest.approx([trained.metrics["test_accuracy"]], abs=1e-6)
    assert len(found["train_loss"]) == len(history) + 1
    assert "\r" not in trained.stdout


@pytest.mark.parametrize("name", ["training-curve.png", "confusion-matrix.png"])
def test_the_plots_are_pictures(trained, name):
    with Image.open(trained.output / name) as image:
        assert min(image.size) > 400 and len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_the_archive_holds_what_its_manifests_say(trained):
    outer = json.loads((trained.archive.parent / "manifest.json").read_text())
    data = trained.archive.read_bytes()
    assert outer.pop("archive") == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    with tarfile.open(trained.archive) as tar:
        content = {entry.name: tar.extractfile(entry).read() for entry in tar}
    assert json.loads(content.pop("manifest.json")) == outer
    assert {name: hashlib.sha256(value).hexdigest() for name, value in content.items()} == outer["files"]
    assert outer["metrics"]["test_accuracy"] == trained.metrics["test_accuracy"]
    assert {"model.onnx", "model.json", "model.safetensors", "code/inference.py"} <= content.keys()
    description = json.loads(content["model.json"])
    assert description["labels"] == ["chequered", "horizontal", "vertical"] and description["image_size"] == 32


def test_sagemakers_environment_gives_the_folders_and_the_seed_repeats_the_archive(run_command, tmp_path, textures):
    digests = []
    for run in ("a", "b"):
        places = {"SM_MODEL_DIR": tmp_path / run / "model", "SM_OUTPUT_DATA_DIR": tmp_path / run / "output"}
        # SageMaker's tuner adds a flag, and passes switches as words.
        tuner = ("--_tuning_objective_metric", "validation_loss", "--freeze-backbone", "False")
        archive = tmp_path / run / "model.tar.gz"
        done = run_command(
            *("train.py", *TINY, *tuner, "--archive", archive, "--checkpoint-dir", tmp_path / run / "checkpoints"),
            **{"SM_CHANNEL_TRAINING": str(textures), **{name: str(path) for name, path in places.items()}},
        )
        assert done.returncode == 0, done.stderr
        assert (places["SM_MODEL_DIR"] / "manifest.json").is_file()
        assert list((tmp_path / run / "checkpoints").iterdir()) == []
        assert (places["SM_OUTPUT_DATA_DIR"] / "metrics.json").is_file()
        digests.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_a_frozen_backbone_keeps_its_weights_and_statistics(run_command, trained, tmp_path, folders, textures):
    config = tmp_path / "best.json"
    config.write_text(json.dumps({"learning_rate": 0.01, "batch_size": 8, "hidden": 16}))
    weights = trained.folder / "model.safetensors"
    done = run_command(
        *("train.py", "--train", textures, "--weights", weights, "--backbone", "resnet18", "--image-size", 32),
        *("--epochs", 5, "--config", config, "--seed", 7, "--batch-size", 16, *folders),
    )
    assert done.returncode == 0, done.stderr
    before, after = read_safetensors(weights), read_safetensors(tmp_path / "model" / "model.safetensors")
    assert after["fc.0.weight"].shape == (16, 512)
    body = [name for name in before if not name.startswith("fc.")]
    assert len(body) > 100 and all(before[name].equal(after[name]) for name in body)
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    assert metrics["recipe"]["learning_rate"] == 0.01 and metrics["recipe"]["batch_size"] == 16
    assert metrics["test_accuracy"] >= 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "nowhere"), "train.py: --train nowhere is not a folder"),
        (("--train", "x", "--epoch", "3"), "train.py: unknown argument --epoch"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run_command, arguments, message, folders):
    done = run_command("train.py", *arguments, *folders)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epochs 0", "argument --epochs: 0 is not a whole number from 1"),
        ("--learning-rate nan", "argument --learning-rate: nan is not a number above 0"),
        ("--hidden -1", "argument --hidden: -1 is not a whole number from 0"),
        ("--batch-size many", "argument --batch-size: many is not a whole number from 1"),
        ("--freeze-backbone maybe", "--freeze-backbone maybe: true or false"),
        ("--_tuning_objective_metric loss stray", "unknown argument stray"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(arguments, message):
    with pytest.raises(Mistake, match=re.escape(message)):
        train.parser().parse(arguments.split())


@pytest.mark.parametrize(
    ("arguments", "freeze"),
    [
        ("", None),
        ("--freeze-backbone", True),
        ("--freeze-backbone true", True),
        ("--freeze-backbone False", False),
        ("--no-freeze-backbone", False),
        ("--no-freeze-backbone false", True),
        ("--freeze-backbone --_tuning_objective_metric loss", True),
    ],
)
def test_switches_take_all_spellings(arguments, freeze):
    assert train.parser().parse(arguments.split()).freeze_backbone is freeze


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no readable JSON file"),
        ("[]", "not a JSON object"),
        ('{"archive": "here"}', "unknown argument --archive"),
        ('{"hidden": "many"}', "--hidden: many is not a whole number from 0"),
        ('{"batch_size": true}', "--batch-size: True is not a whole number from 1"),
    ],
)
def test_a_config_that_hpo_did_not_write_is_refused(tmp_path, content, message):
    path = tmp_path / "best.json"
    path.write_text(content)
    with pytest.raises(Mistake, match=rf"--config .*best\.json: .*{re.escape(message)}"):
        train.read_config(path)


def test_a_config_may_choose_any_of_the_recipe(tmp_path):
    chosen = {"learning_rate": 0.003, "hidden": 128, "label_smoothing": 0.1, "mixup": 0.2, "patience": 3}
    (tmp_path / "best.json").write_text(json.dumps(chosen))
    assert train.read_config(tmp_path / "best.json") == chosen


def test_the_help_fits_a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = train.parser().format_help().splitlines()
    assert len(lines) <= 60
    assert {"network:", "features:", "recipe:", "results:"} <= set(lines)


def test_without_a_frozen_backbone_nothing_is_mixed(run_command, trained, folders, textures):
    weights = ("--weights", trained.folder / "model.safetensors", "--backbone", "resnet18", "--image-size", 32)
    done = run_command("train.py", "--train", textures, *weights, "--mixup", 0.2, *folders)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("train.py: --mixup and --cutmix")


def test_a_rate_that_diverges_ends_in_one_line_and_leaves_no_model(run_command, tmp_path, folders, textures):
    output = tmp_path / "sagemaker"
    output.mkdir()
    done = run_command(
        *("train.py", "--train", textures, *TINY, "--learning-rate", "1e30", *folders),
        *("--checkpoint-dir", tmp_path / "checkpoints", "--feature-cache", tmp_path / "features"),
        SM_MODEL_DIR=str(tmp_path / "model"),
        SM_OUTPUT_DIR=str(output),
    )
    assert done.returncode == 2
    assert "no longer a number in epoch 1" in done.stderr and "lower --learning-rate" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "model" / "manifest.json").exists()
    # What SageMaker shows as the job's FailureReason.
    assert f"train.py: {(output / 'failure').read_text()}\n" == done.stderr


def test_a_class_without_pictures_to_validate_on_is_named(run_command, tmp_path, folders, textures):
    for name in ("horizontal", "vertical"):
        shutil.copytree(textures / name, tmp_path / "validation" / name)
    done = run_command("train.py", "--train", textures, "--validation", tmp_path / "validation", *TINY, *folders)
    assert done.returncode == 0 and "chequered" in done.stderr
    refused = run_command(
        *("train.py", "--train", textures, "--validation", tmp_path / "validation", *TINY, *folders, "--strict")
    )
    assert refused.returncode == 2 and "chequered" in refused.stderr and refused.stderr.count("\n") == 1


def test_it_trains_without_the_packages_that_sagemakers_image_lacks(tmp_path, folders, textures):
    program = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(('onnxscript', 'simplejpeg', 'tensorboard')));"
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].removesuffix('train.py'));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, train.__file__, "--train", textures, *TINY, *folders]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "tensorboard is not installed" in done.stderr and (tmp_path / "output" / "report.html").is_file()


def test_strict_refuses_the_damaged_picture_that_is_skipped_otherwise(run_command, tmp_path, folders, textures):
    data = shutil.copytree(textures, tmp_path / "data")
    damaged = data / "vertical" / "000.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    strict = run_command("train.py", "--train", data, *TINY, *folders, "--strict")
    assert strict.returncode == 2 and str(damaged) in strict.stderr and strict.stderr.count("\n") == 1
    done = run_command("train.py", "--train", data, *TINY, *folders)
    assert done.returncode == 0
    assert f"skipped {damaged}" in done.stderr and "skipped 1 of 108" in done.stderr
