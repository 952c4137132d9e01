"""A bucket that its policy closes: whoever comes, with whatever part of the project, is told where and what helps."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from local.account import Account, running_account
from tests.colour_model import ROOT, picture

pytestmark = pytest.mark.fault

RELEASE = "releases/0/model.tar.gz"


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> Iterator[Account]:
    with running_account(tmp_path_factory.mktemp("account"), data_plane=False) as account:
        yield account


@pytest.fixture
def denied(account, request) -> Callable[..., str]:
    """Makes a bucket with an object or two in it of which a policy denies these actions to everybody; its name."""

    def make(*actions: str) -> str:
        s3, name = account.client("s3"), f"denied-{abs(hash(request.node.name))}"
        s3.create_bucket(Bucket=name)
        for key in (RELEASE, "datasets/dogs/manifest.json"):
            s3.put_object(Bucket=name, Key=key, Body=b"{}")
        resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        statement = {"Effect": "Deny", "Principal": "*", "Action": list(actions), "Resource": resources}
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        return name

    return make


@pytest.fixture
def run(account, tmp_path) -> Callable[..., tuple[int, str]]:
    """Runs a script of model/ with the account's credentials: its status and its last line, the only one."""

    def run(script: str, *arguments: object) -> tuple[int, str]:
        command = [sys.executable, ROOT / "model" / script, *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **account.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr and done.stdout == "", done.stderr
        [line] = done.stderr.splitlines()
        return done.returncode, line

    return run


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "manifest.json").write_text(json.dumps({"archive": {"sha256": digest}}))
    return path


def test_publishing_says_where_and_what_helps(denied, run, archive):
    bucket = denied("s3:PutObject")
    status, line = run("publish.py", "--archive", archive, "--bucket", bucket)
    assert status == 2
    assert f"s3://{bucket}/releases/" in line and "AccessDenied" in line and "notebook's role" in line


def test_publishing_to_no_bucket_names_the_output_that_has_it(run, archive):
    status, line = run("publish.py", "--archive", archive, "--bucket", "there-is-none")
    assert status == 2
    assert "s3://there-is-none/" in line and "terraform output artifact_bucket" in line


def test_submitting_says_where_and_what_helps(denied, run, tmp_path):
    bucket = denied("s3:PutObject")
    data = tmp_path / "dogs" / "husky"
    data.mkdir(parents=True)
    (data / "1.png").write_bytes(picture((1, 2, 3)))
    names = "code_key image_uri instance_type kms_key_arn name role_arn security_group_ids subnet_ids"
    settings = dict.fromkeys(names.split(), "unused") | {"bucket": bucket, "region": "us-east-1"}
    (tmp_path / "submission.json").write_text(json.dumps(settings))
    status, line = run(
        *("submit.py", "--settings", tmp_path / "submission.json", "--data", data.parent),
        *("--dataset", "huskies", "--upload-only"),
    )
    assert status == 1
    assert f"s3://{bucket}/datasets/huskies/" in line and "AccessDenied" in line and "notebook's role" in line


def test_the_box_names_the_object_it_may_not_read(denied, account, tmp_path):
    spec = importlib.util.spec_from_file_location("denied_dataset", ROOT / "ec2_userdata" / "dataset.py")
    dataset = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dataset)
    bucket = denied("s3:GetObject")
    with pytest.raises(dataset.DatasetError) as error:
        dataset.download(account.client("s3"), bucket, "dogs", tmp_path)
    assert f"s3://{bucket}/datasets/dogs/manifest.json" in str(error.value)
    assert "let the caller's role read it" in str(error.value)


def test_hosting_names_the_archive_and_the_permission(denied, account):
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = account.client("iam").create_role(RoleName="hosting", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    url = f"s3://{denied('s3:GetObject')}/{RELEASE}"
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
    with pytest.raises(ClientError) as error:
        account.client("sagemaker").create_model(
            ModelName="denied", ExecutionRoleArn=role, PrimaryContainer={"Image": image, "ModelDataUrl": url}
        )
    assert url in str(error.value) and role in str(error.value) and "s3:GetObject" in str(error.value)
