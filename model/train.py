"""Train a picture classifier and write what serves it.

    python model/train.py --train pictures --archive build/model.tar.gz
    python model/train.py --train pictures --weights none --backbone resnet18 --image-size 96 --epochs 12
    torchrun --nproc-per-node 2 model/train.py --train pictures

The same file runs here, on the EC2 box and as a SageMaker script-mode job, whose SM_* variables are its defaults. One
line an epoch goes to stdout; the last line repeats the epoch whose weights were kept. Killed at any moment, the same
command goes on where it was.
"""

import json
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from classifier import plots, tensorboard
from classifier.archive import complete_model_folder, git_commit, pack, prepare_folder, versions, write_atomically
from classifier.checkpoint import Checkpoint
from classifier.command import Parser, Switch, natural_float, positive_float, run
from classifier.data import Pictures
from classifier.export import write_model
from classifier.fit import Epoch, Fit, loss_and_accuracy
from classifier.metrics import summary
from classifier.mistake import Mistake
from classifier.ranks import Ranks, joined
from classifier.report import write_report
from classifier.task import add_choice_flags, add_recipe_flags, add_task_flags, recipe_from, task_from


def parser() -> Parser:
    """All of train.py's flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_task_flags(parser, os.environ)
    add_recipe_flags(parser)
    add_choice_flags(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--config", type=Path, metavar="FILE", help="recipe and choices, as hpo.py writes it; flags win")
    folder = {"type": Path, "metavar": "DIR"}
    default = os.environ.get("SM_MODEL_DIR", "build/model")
    group.add_argument("--model-dir", **folder, default=default, help="(SM_MODEL_DIR, else build/model)")
    default = os.environ.get("SM_OUTPUT_DATA_DIR", "build/output")
    help_text = "report (SM_OUTPUT_DATA_DIR, else build/output)"
    group.add_argument("--output-data-dir", **folder, default=default, help=help_text)
    group.add_argument("--archive", type=Path, metavar="FILE", help="model.tar.gz, with manifest.json beside it")
    default = "/opt/ml/checkpoints" if "SM_MODEL_DIR" in os.environ else "build/checkpoints"
    group.add_argument("--checkpoint-dir", **folder, default=default, help="for --resume (%(default)s)")
    group.add_argument(
        "--resume", choices=("auto", "never"), default="auto", help="where a killed run was (%(default)s)"
    )
    group.add_argument("--int8", action=Switch, default=False, help="serve 8-bit weights: faster, nearly as accurate")
    help_text = "that --int8 may cost (%(default)s)"
    group.add_argument("--max-accuracy-drop", type=natural_float, default=0.5, metavar="POINTS", help=help_text)
    group.add_argument("--usd-per-hour", type=positive_float, metavar="USD", help="of this machine, for the report")
    return parser


def main() -> None:
    started = time.monotonic()
    flags = parser()
    options = flags.parse()
    if options.config:
        flags.set_defaults(**read_config(options.config))
        options = flags.parse()
    with joined(os.environ) as ranks:
        train(options, ranks, started)


def train(options: Namespace, ranks: Ranks, started: float) -> None:
    """The whole run; of several ranks only the leader prints and writes. started: time.monotonic() of the command."""
    if ranks.leads:
        prepare_folders(options)
    task = task_from(options, ranks)
    counts = {name: len(getattr(task.splits, name)) for name in ("train", "validation", "test")}
    if ranks.leads:
        print(
            f"{len(task.labels)} classes; {counts['train']} pictures to train on, {counts['validation']} to validate, "
            f"{counts['test']} to test; {task.backbone}, {'head only' if task.freeze else 'all layers'}",
            flush=True,
        )
    recipe = recipe_from(options, task, options.learning_rate, options.batch_size)
    checkpoint = Checkpoint(options.checkpoint_dir, task.fingerprint(options.hidden, recipe))
    if options.resume == "never" and ranks.leads:
        checkpoint.remove()
    with tensorboard.writer(options.output_data_dir / "tensorboard") as events:

        def on_epoch(epoch: Epoch) -> None:
            if ranks.leads:
                print(epoch.line(), flush=True)
                events.epoch(epoch)

        began = time.monotonic()
        network, fit = task.train(options.hidden, recipe, on_epoch, checkpoint)
        # What an earlier process trained before it was killed counts too.
        started -= fit.seconds - (time.monotonic() - began)
        logits = task.test_logits(network)
        if not ranks.leads:
            return
        figures = figures_of(fit, logits, task.splits.test.targets)
        int8_drop = options.max_accuracy_drop if options.int8 else None
        int8 = write_model(network, task, options.hidden, options.model_dir, logits, int8_drop)
        seconds = time.monotonic() - started
        metrics = {
            **figures,
            **summary(logits, task.splits.test.targets, task.labels),
            "seconds": round(seconds, 3),
            "history": [asdict(epoch) for epoch in fit.history],
            "pictures": counts,
            "recipe": asdict(recipe),
            "network": task.describe(options.hidden),
            "speed": {**(task.extracted.speed if task.freeze else {}), "training_seconds": round(fit.seconds, 3)},
            "versions": versions(),
            "git_commit": git_commit(),
        }
        if int8:
            metrics["int8"] = int8
            figures["int8_test_accuracy"] = int8["test_accuracy"]
        if options.usd_per_hour:
            usd = options.usd_per_hour * seconds / 3600
            metrics["cost"] = {"usd_per_hour": options.usd_per_hour, "usd": round(usd, 6)}
        write_output(options.output_data_dir, metrics, fit, task.splits.test, logits)
        events.summary(metrics)
    # The manifests come last: who finds one finds everything. Without times, so that training again with the same seed
    # gives the same archive.
    complete_model_folder(options.model_dir, figures)
    if options.archive:
        pack(options.model_dir, options.archive)
    checkpoint.remove()
    if int8:
        print(f"int8_accuracy={int8['test_accuracy']:.6f} accuracy_drop_points={int8['accuracy_drop_points']:.2f}")
    print(f"test_loss={metrics['test_loss']:.6f} test_accuracy={metrics['test_accuracy']:.6f} seconds={seconds:.1f}")
    # Last, because Automatic Model Tuning takes the last value it sees for the job's: it must be the saved model's.
    print(fit.best.line(), flush=True)


def prepare_folders(options: Namespace) -> None:
    """Now and not after the training: a place that cannot be written to should cost no time. Raises Mistake."""
    archive_folder = [options.archive.parent] if options.archive else []
    for folder in (options.model_dir, options.output_data_dir, options.checkpoint_dir, *archive_folder):
        try:
            prepare_folder(folder)
        except OSError as error:
            raise Mistake(f"cannot make the folder {folder}: {error.strerror}") from error


def figures_of(fit: Fit, logits: torch.Tensor, targets: Sequence[int]) -> dict:
    """What the archive's manifest says of the model: of its best epoch, and of the test pictures' logits."""
    test_loss, test_accuracy = loss_and_accuracy(logits, targets)
    return {
        "validation_loss": fit.best.validation_loss,
        "validation_accuracy": fit.best.validation_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "epochs": len(fit.history),
        "best_epoch": fit.best.epoch,
    }


def write_output(folder: Path, metrics: dict, fit: Fit, pictures: Pictures, logits: torch.Tensor) -> None:
    """metrics.json, and what people look at, with the test pictures and their logits."""
    write_atomically(folder / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    plots.training_curve(fit.history, fit.best, folder / "training-curve.png")
    matrix = metrics["confusion_matrix"]
    plots.confusion_matrix(
        np.array(matrix["rows_true_columns_predicted"]), matrix["labels"], folder / "confusion-matrix.png"
    )
    write_report(folder / "report.html", metrics, pictures, logits)


def read_config(path: Path) -> dict:
    """What a file that hpo.py wrote chooses, by the flags' names with _ for -; raises Mistake."""
    try:
        choices = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Mistake(f"--config {path}: no readable JSON file: {error}") from error
    if not isinstance(choices, dict):
        raise Mistake(f"--config {path}: not a JSON object of names and values")
    known = Parser(description="")
    add_recipe_flags(known)
    add_choice_flags(known)
    try:
        chosen = known.parse([f"--{name.replace('_', '-')}={value}" for name, value in choices.items()])
    except Mistake as mistake:
        raise Mistake(f"--config {path}: {mistake}") from None
    return {name: value for name, value in vars(chosen).items() if name in choices}


if __name__ == "__main__":
    run(main)
