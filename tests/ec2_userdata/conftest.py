"""An account in this process (moto's server) with what the box needs of the stack, and boxes to boot in it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.autoscaling.models import AutoScalingBackend
from moto.logs.models import LogsBackend
from moto.s3.models import S3Backend
from moto.server import ThreadedMotoServer
from PIL import Image

from bundle.archives import tar_gz_bytes
from bundle.packages import trainer_files
from local import processes
from local.box import boot
from local.instance_metadata import instance_metadata

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATE = PROJECT / "ec2_userdata" / "user-data.yaml.tftpl"
REGION = "us-east-1"
BUCKET = "image-classifier-123456789012-us-east-1-artifacts"
GROUP = "image-classifier-trainer"
LOG_GROUP = "/image-classifier/trainer"
DATASET = "shapes"
RUN_ID = "0123456789abcdef"


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """render(**variables) -> the user-data, by the real templatefile()."""
    root = tmp_path_factory.mktemp("render")
    expression = f'templatefile("{TEMPLATE}", jsondecode(file("variables.json")))'
    (root / "main.tf").write_text(f'output "user_data" {{\n  value = {expression}\n}}\n')

    def rendered(**changes: object) -> str:
        variables = {
            "autoscaling_group_name": GROUP,
            "bucket": BUCKET,
            "code_key": "code/none.tar.gz",
            "code_sha256": "none",
            "dataset": DATASET,
            "hyperparameters": {},
            "kms_key_arn": f"arn:aws:kms:{REGION}:123456789012:key/none",
            "log_group_name": LOG_GROUP,
            "name": "image-classifier",
            "region": REGION,
            "run_id": RUN_ID,
            "time_cap_seconds": 14400,
        }
        (root / "variables.json").write_text(json.dumps(variables | changes))
        _terraform(root, "apply", "-auto-approve", "-no-color")
        return json.loads(_terraform(root, "output", "-json"))["user_data"]["value"]

    return rendered


def _terraform(root: Path, *arguments: str) -> str:
    result = subprocess.run(["terraform", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclass
class Box:
    """One box and the account around it, after `run`."""

    root: Path
    clients: Mapping[str, object]
    environment: Mapping[str, str]
    render: object
    calls: list[str]
    kms_key_arn: str
    bucket: str = BUCKET
    instance_id: str = ""
    user_data_bytes: int = 0

    def run(self, code: bytes, code_sha256: str | None = None, **variables: object) -> int:
        """Uploads the code, launches an instance by the group, boots it; the exit status of its service."""
        user_data = self.launch(code, code_sha256, **variables)
        return boot(user_data, root=self.root, environment=self.environment, instance_id=self.instance_id)

    def launch(self, code: bytes, code_sha256: str | None = None, **variables: object) -> str:
        """Uploads the code, has the group launch an instance; the user-data that this one is to boot with."""
        code_sha256 = code_sha256 or hashlib.sha256(code).hexdigest()
        key = f"code/{code_sha256}.tar.gz"
        self.clients["s3"].put_object(Bucket=BUCKET, Key=key, Body=code)
        user_data = self.render(code_key=key, code_sha256=code_sha256, kms_key_arn=self.kms_key_arn, **variables)
        self.user_data_bytes = len(user_data.encode())
        autoscaling = self.clients["autoscaling"]
        autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
        self.instance_id = self.group()["Instances"][0]["InstanceId"]
        self.calls.clear()
        return user_data

    @contextlib.contextmanager
    def powered_on(self, user_data: str, root: Path) -> Iterator[tuple[processes.Process, dict[str, str]]]:
        """Boots it below `root` in processes of its own; (what ends at once when stopped, its instance metadata)."""
        root.mkdir(exist_ok=True)
        (root / "user-data").write_text(user_data)
        metadata = {"instance-id": self.instance_id}
        with instance_metadata(metadata) as url:
            process = processes.start(
                [
                    *(sys.executable, "-m", "local.box", "--user-data", root / "user-data", "--root", root),
                    *("--instance-id", self.instance_id),
                ],
                name="box",
                state_dir=root / "power",
                cwd=PROJECT,
                environment={**os.environ, **self.environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url},
                grace_seconds=0,
            )
            try:
                yield process, metadata
            finally:
                process.stop()

    def group(self) -> dict:
        return self.clients["autoscaling"].describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])[
            "AutoScalingGroups"
        ][0]

    def log(self, root: Path | None = None) -> str:
        path = (root or self.root) / "opt/trainer/trainer.log"
        return path.read_text() if path.exists() else ""

    def checkpoints(self) -> dict:
        """The manifest of what is in S3 for the next box."""
        key = f"trainer/checkpoints/{RUN_ID}/manifest.json"
        return json.load(self.clients["s3"].get_object(Bucket=BUCKET, Key=key)["Body"])

    def shipped_to_cloudwatch(self) -> list[str]:
        """The messages in the order that CloudWatch Logs gives back; none where there is no stream yet."""
        logs = self.clients["logs"]
        try:
            events = logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=self.instance_id, startFromHead=True, limit=10_000
            )["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in events]

    def shipped_to_s3(self) -> str:
        key = f"trainer/logs/{self.instance_id}/trainer.log"
        return self.clients["s3"].get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()

    def releases(self) -> list[str]:
        listed = self.clients["s3"].list_objects_v2(Bucket=BUCKET, Prefix="releases/")
        return [item["Key"] for item in listed.get("Contents", [])]

    def assert_gone_with_its_log(self, *, ending: str) -> None:
        """The log is in both places and ends with `ending`; afterwards the group is empty and stays empty."""
        assert self.shipped_to_cloudwatch()[-1] == f"training ended: {ending}"
        assert self.shipped_to_cloudwatch() == [line for line in self.shipped_to_s3().splitlines() if line.strip()]
        group = self.group()
        assert (group["DesiredCapacity"], group["Instances"]) == (0, [])
        described = self.clients["ec2"].describe_instances(InstanceIds=[self.instance_id])
        assert described["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"
        assert self.calls[-1] == f"terminate {self.instance_id} decrement=True"
        assert any(call.startswith("log ") for call in self.calls[:-1])
        assert (self.root / "opt/trainer/done").exists()


@pytest.fixture
def box(tmp_path, account, render, monkeypatch):
    """A Box in an account of its own; `calls` lists what reached the account, in order."""
    calls: list[str] = []
    _note(monkeypatch, calls, S3Backend, "put_object", lambda _, __, key, *a, **k: f"put {key}")
    _note(monkeypatch, calls, S3Backend, "complete_multipart_upload", lambda _, __, upload, *a, **k: f"put {upload}")
    _note(monkeypatch, calls, LogsBackend, "put_log_events", lambda _, __, stream, *a, **k: f"log {stream}")
    _note(
        monkeypatch, calls, AutoScalingBackend, "terminate_instance",
        lambda _, instance, decrement: f"terminate {instance} decrement={decrement}",
    )  # fmt: skip
    url, clients = account
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    clients["s3"].create_bucket(Bucket=BUCKET)
    clients["logs"].create_log_group(logGroupName=LOG_GROUP)
    _create_group(clients)
    return Box(
        root=tmp_path / "box",
        clients=clients,
        environment={
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        render=render,
        calls=calls,
        kms_key_arn=clients["kms"].create_key()["KeyMetadata"]["Arn"],
    )


@pytest.fixture(scope="session")
def account():
    """(URL, clients) of moto's server in a thread of this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        session = boto3.Session("testing", "testing", region_name=REGION)
        names = ("s3", "logs", "ec2", "autoscaling", "kms")
        yield url, {name: session.client(name, endpoint_url=url) for name in names}
    finally:
        server.stop()


def _note(monkeypatch, calls, backend, method, describe) -> None:
    original = getattr(backend, method)

    def noting(*arguments, **keywords):
        calls.append(describe(*arguments, **keywords))
        return original(*arguments, **keywords)

    monkeypatch.setattr(backend, method, noting)


def _create_group(clients) -> None:
    image = clients["ec2"].describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    template = clients["ec2"].create_launch_template(
        LaunchTemplateName=GROUP, LaunchTemplateData={"ImageId": image, "InstanceType": "m5.2xlarge"}
    )["LaunchTemplate"]["LaunchTemplateId"]
    clients["autoscaling"].create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        MinSize=0,
        MaxSize=1,
        LaunchTemplate={"LaunchTemplateId": template},
        AvailabilityZones=[f"{REGION}a"],
    )


@pytest.fixture(scope="session")
def project_code() -> bytes:
    """The trainer's code as the project packages it."""
    return tar_gz_bytes(trainer_files(PROJECT))


@pytest.fixture(scope="session")
def code_with_trainer():
    """code_with_trainer(source) -> the project's code with another model/train.py, for trainings that misbehave."""

    def code(source: str) -> bytes:
        return tar_gz_bytes(trainer_files(PROJECT) | {"model/train.py": source.encode()})

    return code


@pytest.fixture
def upload_dataset(box):
    """upload_dataset({class: pictures}) writes a data set and its manifest, changed by `spoil(files, manifest)`."""

    def upload(classes: Mapping[str, int], spoil=lambda files, manifest: None) -> None:
        files = {
            f"{name}/{number}.png": _picture(index, number)
            for index, (name, count) in enumerate(classes.items())
            for number in range(count)
        }
        entries = {
            path: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for path, content in files.items()
        }
        manifest = {"files": entries}
        spoil(files, manifest)
        for path, content in files.items():
            box.clients["s3"].put_object(Bucket=BUCKET, Key=f"datasets/{DATASET}/{path}", Body=content)
        body = json.dumps(manifest).encode()
        box.clients["s3"].put_object(Bucket=BUCKET, Key=f"datasets/{DATASET}/manifest.json", Body=body)

    return upload


def _picture(index: int, number: int) -> bytes:
    """A plain picture whose colour tells its class, each a little different."""
    colour = [20 + number] * 3
    colour[index % 3] = 235 - number
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), tuple(colour)).save(buffer, "PNG")
    return buffer.getvalue()
