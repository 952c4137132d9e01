"""The box for real, as far as one machine can show it: the user-data in Terraform's state, taken by cloud-init and
systemd of a booted Debian, its own Python and boto3, against the local account. Needs root and debootstrap.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local import debian
from local.account import Account, running_account
from local.digits import write_digits
from local.instance_metadata import instance_metadata

PROJECT = Path(__file__).resolve().parents[2]
NAME = "debian-classifier"
GROUP = f"{NAME}-trainer"
EPOCHS = 16
# Everything of the network moves, so that an epoch takes long enough to be interrupted.
HYPERPARAMETERS = {
    "backbone": "resnet18", "weights": "none", "image-size": "32", "freeze-backbone": "false", "batch-size": "4",
    "epochs": str(EPOCHS), "patience": str(EPOCHS),
}  # fmt: skip
PACKAGES = ("python3-venv", "python3-boto3")  # of the user-data; there already, they need no mirror
NOTICE = json.dumps({"action": "terminate", "time": "2030-01-01T00:00:00Z"})


@dataclass
class Trainer:
    """The applied trainer of a stack and the account it is in."""

    account: Account
    bucket: str
    run_prefix: str
    user_data: str

    def launch(self) -> str:
        """The group's one instance."""
        autoscaling = self.account.client("autoscaling")
        autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
        return self.group()["Instances"][0]["InstanceId"]

    def group(self) -> dict:
        groups = self.account.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        return groups["AutoScalingGroups"][0]

    def keys(self, prefix: str) -> list[str]:
        listed = self.account.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in listed.get("Contents", [])]

    def checkpoints(self) -> dict:
        """The manifest of what the next box would begin with; its files at least."""
        key = self.run_prefix + "manifest.json"
        if key not in self.keys(self.run_prefix):
            return {"files": {}}
        return json.load(self.account.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"])

    def shipped(self, instance: str) -> list[str]:
        """The box's log in CloudWatch Logs."""
        logs = self.account.client("logs")
        try:
            events = logs.get_log_events(logGroupName=f"/{NAME}/trainer", logStreamName=instance, startFromHead=True)
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in events["events"]]


@pytest.fixture(scope="module")
def tree() -> Path:
    if reason := debian.unavailable():
        pytest.skip(reason)
    if Path(sys.base_prefix) == Path("/usr"):
        pytest.skip("the project's Python is the system's own: it cannot be shown to another system")
    return debian.tree(PROJECT / "build" / "debian", PACKAGES)


@pytest.fixture(scope="module")
def trainer(tree, tmp_path_factory) -> Iterator[Trainer]:
    folder = tmp_path_factory.mktemp("trainer")
    with running_account(folder / "account", data_plane=False) as account:
        subnets = account.client("ec2").describe_subnets()["Subnets"]
        ids = [subnet["SubnetId"] for subnet in subnets[:2]]
        variables = {
            "name": NAME,
            "network": {"vpc_id": subnets[0]["VpcId"], "workload_subnet_ids": ids, "lambda_subnet_ids": ids},
            "trainer_hyperparameters": HYPERPARAMETERS,
            "trainer_spot": True,
            "trainer_cost_cap_usd": 0.15,
            "trainer_usd_per_hour": 0.3,
        }
        (folder / "variables.tfvars.json").write_text(json.dumps(variables))
        environments = PROJECT / "terraform/environments"
        files = [environments / "reference.tfvars", environments / "local.tfvars", folder / "variables.tfvars.json"]
        command = ["terraform", "apply", "-auto-approve", "-no-color", "-input=false", "-target=module.trainer"]
        command += [f"-state={folder / 'terraform.tfstate'}", *(f"-var-file={file}" for file in files)]
        subprocess.run(
            command, cwd=PROJECT / "terraform", env={**os.environ, **account.environment}, check=True,
            capture_output=True,
        )  # fmt: skip
        attributes = {
            resource["type"]: resource["instances"][0]["attributes"]
            for resource in json.loads((folder / "terraform.tfstate").read_text())["resources"]
            if resource["type"] in ("aws_launch_template", "aws_s3_object")
        }
        user_data = base64.b64decode(attributes["aws_launch_template"]["user_data"]).decode()
        bucket = attributes["aws_s3_object"]["bucket"]
        _upload_digits(account, bucket, folder)
        run_id = re.search(r'RUN_ID = "(\w+)"', user_data)[1]
        yield Trainer(account, bucket, f"trainer/checkpoints/{run_id}/", user_data)


def _upload_digits(account: Account, bucket: str, folder: Path) -> None:
    """A few dozen of them, as model/submit.py uploads a data set."""
    import hashlib

    write_digits(folder / "digits")
    files = {}
    for label in ("0", "1", "2"):
        for path in sorted((folder / "digits" / label).iterdir())[:20]:
            files[f"{label}/{path.name}"] = path.read_bytes()
    entries = {name: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)} for name, body in files.items()}
    files["manifest.json"] = json.dumps({"files": entries}).encode()
    for name, body in files.items():
        account.client("s3").put_object(Bucket=bucket, Key=f"datasets/demo/{name}", Body=body)


@pytest.fixture
def install(trainer, tree, tmp_path) -> Iterator[Callable[[str, str], debian.Machine]]:
    """install(instance id, metadata URL) -> a box, not yet started. Its image brings what training needs."""
    machines = []

    def install_(instance: str, metadata_url: str) -> debian.Machine:
        machines.append(
            debian.Machine(
                tree,
                tmp_path / instance,
                instance_id=instance,
                user_data=trainer.user_data,
                environment={
                    **trainer.account.environment,
                    "AWS_EC2_METADATA_DISABLED": "false",
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url,
                    "OMP_NUM_THREADS": "1",  # for so small a network, threads only wait for each other
                },
                mounts={
                    Path(sys.base_prefix): sys.base_prefix,
                    Path(sys.prefix): "/opt/trainer/venv",
                },
            )
        )
        return machines[-1]

    yield install_
    for machine in machines:
        machine.cut_power()
        shutil.rmtree(machine.root, ignore_errors=True)


def until(condition: Callable[[], object], machine: debian.Machine, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain; the box said:\n{log(machine)}"
        time.sleep(0.2)


def log(machine: debian.Machine) -> str:
    path = machine.root / "opt/trainer/trainer.log"
    return path.read_text() if path.exists() else ""


def epochs(text: str) -> list[int]:
    """What was trained, in order; after the test's figures the kept epoch is said again."""
    return [int(number) for number in re.findall(r"^epoch=(\d+)", text.partition("test_loss=")[0], re.MULTILINE)]


def gone(trainer: Trainer) -> bool:
    return trainer.group()["DesiredCapacity"] == 0 and not trainer.group()["Instances"]


def remove_releases(trainer: Trainer) -> None:
    for key in trainer.keys("releases/"):
        trainer.account.client("s3").delete_object(Bucket=trainer.bucket, Key=key)


@pytest.mark.slow
def test_from_the_first_boot_to_a_release_through_a_crash_a_power_cut_and_a_shutdown(trainer, install):
    remove_releases(trainer)
    instance = trainer.launch()
    with instance_metadata({"instance-id": instance}) as url:
        box = install(instance, url)
        box.start()
        until(lambda: len(epochs(log(box))) >= 2, box)
        box.run("systemctl", "kill", "--signal=KILL", "trainer.service")  # as when memory runs out
        seen = epochs(log(box))
        until(lambda: max(epochs(log(box))) >= max(seen) + 2, box)
        box.cut_power()
        seen = epochs(log(box))
        assert not gone(trainer) and trainer.keys("releases/") == []

        box.start()
        until(lambda: max(epochs(log(box))) >= max(seen) + 2, box)
        until(lambda: trainer.shipped(instance), box)  # while it trains
        box.shut_down(120)
        assert not gone(trainer), "a shutdown is no end of training"
        seen = epochs(log(box))

        box.start()
        until(lambda: gone(trainer), box)
        result = json.loads((box.root / "var/lib/cloud/data/result.json").read_text())
        assert result["v1"]["errors"] == []

    found = epochs(log(box))
    # Each epoch once, but for those that an interruption fell into.
    assert sorted(set(found)) == list(range(1, EPOCHS + 1)) and len(found) <= EPOCHS + 3
    assert found == sorted(found)
    assert "goes on from" not in log(box)
    archive, manifest = sorted(trainer.keys("releases/"), reverse=True)
    assert archive.endswith("model.tar.gz") and manifest.endswith("manifest.json")
    assert trainer.shipped(instance)[-1] == "training ended: released"
    assert trainer.keys(f"trainer/logs/{instance}/") == [f"trainer/logs/{instance}/trainer.log"]


@pytest.mark.slow
def test_a_spot_box_yields_and_another_goes_on(trainer, install):
    remove_releases(trainer)
    first = trainer.launch()
    metadata = {"instance-id": first}
    with instance_metadata(metadata) as url:
        box = install(first, url)
        box.start()
        until(lambda: len(epochs(log(box))) >= 2, box)
        metadata["spot/instance-action"] = NOTICE
        until(lambda: "checkpoints are in S3" in log(box), box)
        assert trainer.group()["DesiredCapacity"] == 1
        assert trainer.checkpoints()["files"] and trainer.checkpoints()["instance_id"] == first
        box.cut_power()
    seen = epochs(log(box))
    assert seen[-1] < EPOCHS and trainer.keys("releases/") == []

    # EC2 takes the instance, the group launches another.
    trainer.account.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    second = trainer.launch()
    assert second != first
    with instance_metadata({"instance-id": second}) as url:
        other = install(second, url)
        other.start()
        until(lambda: gone(trainer), other)
    assert f"checkpoint files of {first}" in log(other)
    found = epochs(log(other))
    assert found == list(range(found[0], EPOCHS + 1)) and found[0] in (seen[-1], seen[-1] + 1)
    assert len(trainer.keys("releases/")) == 2
    assert trainer.shipped(second)[-1] == "training ended: released"
