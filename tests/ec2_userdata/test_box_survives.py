"""A run that is interrupted goes on: after a power cut on the same box, after a spot notice on another one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

CLASSES = {"blue": 2, "red": 2}
NOTICE = json.dumps({"action": "terminate", "time": "2030-01-01T00:00:00Z"})

# Six epochs with a checkpoint each. Begun from nothing it gets stuck at the third: somebody must interrupt it.
TRAINER = """
import hashlib, json, os, pathlib, sys, time
flags = dict(zip(sys.argv[1:], sys.argv[2:]))
folder, archive = pathlib.Path(flags["--checkpoint-dir"]), pathlib.Path(flags["--archive"])
checkpoint = folder / "checkpoint.pt"
folder.mkdir(exist_ok=True)
first = int(checkpoint.read_text()) if checkpoint.exists() else 0
for epoch in range(first + 1, 7):
    print("epoch", epoch, flush=True)
    (folder / ".part").write_text(str(epoch))
    os.replace(folder / ".part", checkpoint)
    if first == 0 and epoch == 3:
        time.sleep(3600)
archive.write_bytes(b"whole")
digest = hashlib.sha256(b"whole").hexdigest()
archive.with_name("manifest.json").write_text(json.dumps({"archive": {"sha256": digest}}))
checkpoint.unlink()
"""
THE_WHOLE = [f"epoch {number}" for number in range(1, 7)]


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def epochs(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("epoch ")]


@pytest.fixture
def synced(box):
    """synced(text) -> whether a checkpoint of that content is what the next box would get."""

    def synced_(text: str) -> bool:
        try:
            entry = box.checkpoints()["files"]["checkpoint.pt"]
        except (KeyError, box.clients["s3"].exceptions.NoSuchKey):
            return False
        prefix = "trainer/checkpoints/0123456789abcdef/"
        body = box.clients["s3"].get_object(Bucket=box.bucket, Key=prefix + entry["sha256"])["Body"].read()
        return body.decode() == text

    return synced_


def test_after_a_power_cut_the_box_goes_on_from_its_own_checkpoint(box, code_with_trainer, upload_dataset, tmp_path):
    upload_dataset(CLASSES)
    user_data = box.launch(code_with_trainer(TRAINER))
    root = tmp_path / "box"
    with box.powered_on(user_data, root):
        until(lambda: "epoch 3" in box.log(root))
        until(lambda: "epoch 3" in box.shipped_to_cloudwatch())  # while it runs, not only at its end
    assert box.releases() == []
    with box.powered_on(user_data, root) as (process, _):
        assert process.wait(120) == 100, box.log(root)
    assert epochs(box.log(root)) == THE_WHOLE
    assert "goes on from" not in box.log(root)  # its own disk is newer than S3
    assert len(box.releases()) == 2
    assert (box.group()["DesiredCapacity"], box.group()["Instances"]) == (0, [])
    assert box.shipped_to_cloudwatch() == [line for line in box.log(root).splitlines()[:-1] if line.strip()]


def test_after_a_spot_notice_another_box_goes_on_from_s3(box, code_with_trainer, upload_dataset, tmp_path, synced):
    upload_dataset(CLASSES)
    code = code_with_trainer(TRAINER)
    user_data = box.launch(code)
    first, old, new = box.instance_id, tmp_path / "old", tmp_path / "new"
    with box.powered_on(user_data, old) as (process, metadata):
        until(lambda: "epoch 3" in box.log(old))
        metadata["spot/instance-action"] = NOTICE
        until(lambda: "checkpoints are in S3" in box.log(old))
        assert "spot notice: terminate at 2030-01-01T00:00:00Z" in box.log(old)
        assert synced("3")
        assert process.poll() is None  # it waits, and leaves its place in the group to the next
    assert box.group()["DesiredCapacity"] == 1
    spent = box.checkpoints()["elapsed_seconds"]
    assert spent > 0

    # EC2 takes the instance, the group launches another.
    box.clients["autoscaling"].terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    user_data = box.launch(code)
    assert box.instance_id != first
    with box.powered_on(user_data, new) as (process, _):
        assert process.wait(120) == 100, box.log(new)
    assert f"goes on from 1 checkpoint files of {first}" in box.log(new)
    assert epochs(box.log(old)) + epochs(box.log(new)) == THE_WHOLE
    assert len(box.releases()) == 2
    assert (box.group()["DesiredCapacity"], box.group()["Instances"]) == (0, [])
    assert box.checkpoints()["elapsed_seconds"] > spent  # one clock for both
    assert box.checkpoints()["files"] == {}


def test_a_withdrawn_notice_and_training_goes_on(box, code_with_trainer, upload_dataset, tmp_path):
    upload_dataset(CLASSES)
    user_data = box.launch(code_with_trainer(TRAINER))
    root = tmp_path / "box"
    with box.powered_on(user_data, root) as (process, metadata):
        until(lambda: "epoch 3" in box.log(root))
        metadata["spot/instance-action"] = NOTICE
        until(lambda: "checkpoints are in S3" in box.log(root))
        del metadata["spot/instance-action"]
        assert process.wait(120) == 100, box.log(root)
    assert epochs(box.log(root)) == THE_WHOLE


def test_the_cap_holds_over_boxes(box, code_with_trainer, upload_dataset, put_manifest):
    upload_dataset(CLASSES)
    put_manifest({"elapsed_seconds": 500, "instance_id": "i-before", "files": {}})
    assert box.run(code_with_trainer("raise SystemExit('trained too late')"), time_cap_seconds=400) == 75
    assert "the cap of 400 s is reached" in box.log()
    assert "trained too late" not in box.log()
    box.assert_gone_with_its_log(ending="at its cap")


def test_whoever_asks_for_a_training_anew_gets_a_cap_of_its_own(box, code_with_trainer, upload_dataset, put_manifest):
    """The run before ended for good, at its cap or not: that box had noted so."""
    upload_dataset(CLASSES)
    put_manifest({"elapsed_seconds": 500, "instance_id": "i-before", "files": {}})
    box.clients["s3"].put_object(
        Bucket=box.bucket, Key="trainer/checkpoints/0123456789abcdef/finished", Body=b"i-before"
    )
    assert box.run(code_with_trainer("raise SystemExit(2)"), time_cap_seconds=400) == 2
    assert "the cap of" not in box.log()
    finished = box.clients["s3"].get_object(Bucket=box.bucket, Key="trainer/checkpoints/0123456789abcdef/finished")
    assert finished["Body"].read().decode() == box.instance_id
    assert box.checkpoints()["elapsed_seconds"] < 400


@pytest.fixture
def put_manifest(box):
    def put(manifest: dict) -> None:
        body = json.dumps(manifest).encode()
        box.clients["s3"].put_object(
            Bucket=box.bucket, Key="trainer/checkpoints/0123456789abcdef/manifest.json", Body=body
        )

    return put
