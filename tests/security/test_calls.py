"""What a role is granted against what its code was seen to call, in a real run of that code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from local.account import running_account
from security.calls import action, recorded_actions, unrecorded, untabled
from security.matrix import Row, read_rows

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "pictures-artifacts"

HANDLER = """
import sys
from types import SimpleNamespace
from handler import lambda_handler
context = SimpleNamespace(
    function_name="pictures", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="1",
    get_remaining_time_in_millis=lambda: 9000,
)
print(lambda_handler({"url": sys.argv[1]}, context))
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Actions by role, of the notebook's and the function's own code in a local account, each under its own key."""
    folder = tmp_path_factory.mktemp("recorded")
    data = folder / "flowers"
    for name in ("daisy/1.jpg", "rose/1.jpg"):
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(name.encode())
    with running_account(folder / "account", data_plane=False) as account:
        account.client("s3").create_bucket(Bucket=BUCKET)
        settings = {
            "bucket": BUCKET,
            "code_key": "code/0123.tar.gz",
            "image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1",
            "instance_type": "ml.m5.xlarge",
            "kms_key_arn": account.client("kms").create_key()["KeyMetadata"]["Arn"],
            "name": "pictures",
            "region": "us-east-1",
            "role_arn": "arn:aws:iam::123456789012:role/pictures-training",
            "security_group_ids": ["sg-0123456789abcdef0"],
            "subnet_ids": ["subnet-0123456789abcdef0"],
        }
        (folder / "submission.json").write_text(json.dumps(settings))

        def run(role: str, *command: str, **variables: str) -> str:
            environment = os.environ | account.environment | {"AWS_ACCESS_KEY_ID": role} | variables
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
            )
            return done.stdout + done.stderr

        submit = ("model/submit.py", "--settings", str(folder / "submission.json"))
        # Jobs complete at once here, and leave nothing to release: what was called until then is what counts.
        assert "cannot be fetched" in run("notebook", *submit, "--data", str(data))
        run("notebook", *submit, "--dataset", "flowers", "--tune", "--trials", "1")

        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        url = account.put_picture("1.png", picture.getvalue())
        address = urllib.parse.urlsplit(url)
        [authority] = (folder / "account").rglob("ca.pem")
        run(
            *("lambda", "-c", HANDLER, url),
            PYTHONPATH=str(ROOT / "lambda"),
            ENDPOINT_NAME="pictures",
            SSL_CERT_FILE=str(authority),
            PRIVATE_HOSTS=json.dumps([{"host": address.hostname, "port": address.port, "cidr": "127.0.0.1/32"}]),
        )
    return recorded_actions(folder / "account" / "calls.jsonl", ["lambda", "notebook"])


def test_what_code_calls_it_is_granted_and_nothing_is_granted_to_it_that_it_does_not_call(recorded):
    assert sorted(recorded) == ["lambda", "notebook"]
    rows = read_rows()
    assert untabled(recorded, rows) == []
    assert unrecorded(recorded, rows) == []


def row(action: str, page: str | None = None) -> Row:
    return Row("box", "arn", action, "*", (), True, "code.py", page)


def test_a_call_that_no_row_has_and_a_row_that_no_call_needs_are_named(tmp_path):
    calls = tmp_path / "calls.jsonl"
    line = {"time": 0, "service": "s3", "action": "HeadObject", "access_key": "box", "status": 200}
    calls.write_text("".join(json.dumps(line | {"access_key": key}) + "\n" for key in ("box", "testing")))
    recorded = recorded_actions(calls, ["box", "other"])
    assert recorded == {"box": {"s3:GetObject"}}
    assert untabled(recorded, [row("s3:PutObject")]) == ["box: s3:GetObject"]
    rows = [row("s3:GetObject"), row("s3:PutObject"), row("s3:AbortMultipartUpload", "https://docs.aws.amazon.com/")]
    assert untabled(recorded, rows) == []
    assert unrecorded(recorded, rows) == ["box: s3:PutObject"]


@pytest.mark.parametrize(
    ("service", "operation", "expected"),
    [
        ("s3", "ListObjectsV2", "s3:ListBucket"),
        ("s3", "UploadPart", "s3:PutObject"),
        ("monitoring", "DescribeAlarms", "cloudwatch:DescribeAlarms"),
        ("sagemaker", "POST /endpoints/demo/invocations", "sagemaker:InvokeEndpoint"),
        ("logs", "PutLogEvents", "logs:PutLogEvents"),
    ],
)
def test_an_operation_is_the_action_that_iam_asks_for(service, operation, expected):
    assert action(service, operation) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1))
def test_a_line_that_is_no_call_is_named(tmp_path_factory, text):
    calls = tmp_path_factory.mktemp("calls") / "calls.jsonl"
    calls.write_text(text, newline="")
    if text.splitlines():
        with pytest.raises(ValueError, match="line 1: not a recorded call"):
            recorded_actions(calls, [])
