"""Whole runs of the rendered user-data in an account: whatever happens, the log is shipped and the box leaves."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from pathlib import Path

import pytest

RELEASED = 100
CLASSES = {"blue": 8, "red": 8}
TINY = {"backbone": "squeezenet1_1", "weights": "none", "image-size": "32", "epochs": "1", "batch-size": "4"}


def test_success_releases_the_archive_then_the_manifest_and_leaves(box, project_code, upload_dataset):
    upload_dataset(CLASSES)
    status = box.run(project_code, hyperparameters=TINY)
    assert status == RELEASED, box.log()

    archive_key, manifest_key = sorted(box.releases(), reverse=True)
    body = box.clients["s3"].get_object(Bucket=_bucket(box), Key=archive_key)["Body"].read()
    manifest = json.load(box.clients["s3"].get_object(Bucket=_bucket(box), Key=manifest_key)["Body"])
    digest = hashlib.sha256(body).hexdigest()
    assert (archive_key, manifest_key) == (f"releases/{digest}/model.tar.gz", f"releases/{digest}/manifest.json")
    assert manifest["archive"] == {"sha256": digest, "bytes": len(body)}
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert {"model.onnx", "model.safetensors", "model.json"} <= set(archive.getnames())
        model = json.load(archive.extractfile("model.json"))
    assert (model["backbone"], model["image_size"], model["labels"]) == ("squeezenet1_1", 32, ["blue", "red"])

    put = [call for call in box.calls if call.startswith("put releases/")]
    assert put == [f"put {archive_key}", f"put {manifest_key}"]
    assert f"released s3://{_bucket(box)}/{archive_key}" in box.shipped_to_cloudwatch()
    box.assert_gone_with_its_log(ending="released")
    assert box.user_data_bytes < 12 * 1024  # of the 16 KB that EC2 takes


def test_a_mistake_in_the_data_is_not_tried_again(box, project_code, upload_dataset):
    upload_dataset({"red": 8})
    assert box.run(project_code, hyperparameters=TINY) == 2
    assert box.log().count("one class only") == 1
    assert box.releases() == []
    box.assert_gone_with_its_log(ending="a mistake")


@pytest.mark.fault
def test_data_that_is_not_as_its_manifest_says_is_not_trained_on(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES, lambda files, _: files.update({"red/3.png": files["red/3.png"][:-1]}))
    assert box.run(code_with_trainer("raise SystemExit('trained on bad data')")) == 2
    assert box.log().count("datasets/shapes/red/3.png is not what the manifest says") == 1
    assert "trained on bad data" not in box.log()
    box.assert_gone_with_its_log(ending="a mistake")


@pytest.mark.fault
def test_a_missing_data_set_is_named_with_the_remedy(box, code_with_trainer):
    assert box.run(code_with_trainer("raise SystemExit('trained on nothing')")) == 2
    assert "datasets/shapes/manifest.json cannot be read" in box.log()
    assert "model/submit.py --data" in box.log()
    assert "Traceback" not in box.log()
    box.assert_gone_with_its_log(ending="a mistake")


@pytest.mark.fault
def test_code_of_another_hash_is_not_run(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES)
    assert box.run(code_with_trainer("open('ran', 'w')"), code_sha256="0" * 64) == 2
    assert f"planned was {'0' * 64}: not run" in box.log()
    assert not (box.root / "opt/trainer/code").exists()
    box.assert_gone_with_its_log(ending="a mistake")


@pytest.mark.fault
def test_a_crash_is_tried_three_times(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES)
    assert box.run(code_with_trainer("raise OSError('no space left')")) == 1
    assert box.log().count("OSError: no space left") == 3
    box.assert_gone_with_its_log(ending="exit-code 1")


HALF_WAY = """
import hashlib, json, pathlib, sys
archive = pathlib.Path(sys.argv[sys.argv.index("--archive") + 1])
if not archive.exists():
    archive.write_bytes(b"half")
    sys.exit("killed half-way")
archive.write_bytes(b"whole")
digest = hashlib.sha256(b"whole").hexdigest()
archive.with_name("manifest.json").write_text(json.dumps({"archive": {"sha256": digest}}))
"""


@pytest.mark.fault
def test_a_bucket_that_refuses_the_release_is_named(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES)
    bucket = _bucket(box)
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
    statement["Resource"] = f"arn:aws:s3:::{bucket}/releases/*"
    box.clients["s3"].put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [statement]}))
    try:
        assert box.run(code_with_trainer(HALF_WAY)) == 1
    finally:
        box.clients["s3"].delete_bucket_policy(Bucket=bucket)
    [first, *_] = [line for line in box.log().splitlines() if "Failed to upload" in line]
    assert f"s3://{bucket}/releases/" in first and "let your role, the bucket's policy" in first
    assert "Traceback" not in box.log()
    assert box.releases() == []
    box.assert_gone_with_its_log(ending="exit-code 1")


def test_a_crash_that_passes_ends_in_a_release_of_what_was_trained(box, code_with_trainer, upload_dataset):
    """The second start finds the first one's archive, half-made, and the data; the third finds nothing to do."""
    upload_dataset(CLASSES)
    assert box.run(code_with_trainer(HALF_WAY)) == RELEASED, box.log()
    digest = hashlib.sha256(b"whole").hexdigest()
    assert sorted(box.releases()) == [f"releases/{digest}/manifest.json", f"releases/{digest}/model.tar.gz"]
    box.assert_gone_with_its_log(ending="released")


def test_the_time_cap_ends_a_training_that_hangs(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES)
    hang = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(3600)"
    assert box.run(code_with_trainer(hang), time_cap_seconds=8) == 75
    assert box.log().count("the cap of 8 s is reached") == 1
    pid = int((box.root / "opt/trainer/pid").read_text())
    assert not _runs(pid)
    assert box.releases() == []
    box.assert_gone_with_its_log(ending="at its cap")


def test_the_time_cap_counts_from_the_first_start(box, code_with_trainer, upload_dataset):
    """As after a reboot: the clock is a file on the box, not this process's."""
    upload_dataset(CLASSES)
    started = box.root / "opt/trainer/started"
    started.parent.mkdir(parents=True)
    started.write_text(str(time.time() - 500))
    assert box.run(code_with_trainer("raise SystemExit('trained too late')"), time_cap_seconds=400) == 75
    assert "trained too late" not in box.log()
    box.assert_gone_with_its_log(ending="at its cap")


@pytest.mark.fault
def test_the_box_leaves_although_its_log_cannot_be_shipped(box, code_with_trainer, upload_dataset):
    upload_dataset(CLASSES)
    box.clients["logs"].delete_log_group(logGroupName="/image-classifier/trainer")
    box.run(code_with_trainer("raise SystemExit(2)"))
    assert "the log was not shipped" in box.log()
    assert (box.group()["DesiredCapacity"], box.group()["Instances"]) == (0, [])


def test_a_finished_box_does_nothing_when_it_boots_again(box, code_with_trainer):
    done = box.root / "opt/trainer/done"
    done.parent.mkdir(parents=True)
    done.touch()
    assert box.run(code_with_trainer("")) == 0
    assert box.calls == []
    assert not Path(box.root, "opt/trainer/trainer.log").exists()


def test_a_long_log_is_shipped_in_batches_and_in_order(box, code_with_trainer, upload_dataset):
    """More events, and more bytes, than one PutLogEvents takes; a line longer than an event may be."""
    upload_dataset(CLASSES)
    noise = """
for number in range(12_000):
    print("line", number)
print("long " + "é" * 300_000)
for _ in range(14):
    print("wide " + "x" * 90_000)
print("\\nlast words")
raise SystemExit(2)
"""
    assert box.run(code_with_trainer(noise)) == 2
    stream = f"log {box.instance_id}"
    assert box.calls.count(stream) >= 3
    messages = []
    token = None
    while True:  # at most 10,000 a page
        page = box.clients["logs"].get_log_events(
            logGroupName="/image-classifier/trainer", logStreamName=box.instance_id, startFromHead=True,
            **({"nextToken": token} if token else {}),
        )  # fmt: skip
        if page["nextForwardToken"] == token:
            break
        messages += [event["message"] for event in page["events"]]
        token = page["nextForwardToken"]
    lines = [message for message in messages if message.startswith("line ")]
    assert lines == [f"line {number}" for number in range(12_000)]
    [long] = [message for message in messages if message.startswith("long ")]
    assert len(long.encode()) <= 100_000 and set(long[5:]) == {"é"}
    assert messages.index("last words") == len(messages) - 3  # before run.py's and finish.py's own
    assert box.shipped_to_s3().count("é") == 300_000


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _bucket(box) -> str:
    return next(bucket["Name"] for bucket in box.clients["s3"].list_buckets()["Buckets"])
