"""What goes wrong around `terraform apply`: Ctrl-C, a small quota, a release that does not start, things left behind.

One stack lives through all of it, so these run together and in this order, in a new account whose functions and
endpoints run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from python_terraform import IsFlagged

from local import hosting, processes
from tests.colour_model import model_files, pack, picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting"),
]

# The remedies as the README has them: of a new account, and after Ctrl-C.
UNRESERVED = {"lambda_reserved_concurrency": None, "lambda_provisioned_concurrency": 0}
UNTAINT = r"""
terraform show -no-color | sed -n 's/^# \(.*\): (tainted)$/\1/p' | while read -r address; do
  terraform untaint "$address"
done
"""
# Until the file is there the model is loading: a deployment lasts as long as a test wants.
LOADING = "import pathlib, time\nwhile not pathlib.Path({!r}).exists():\n    time.sleep(0.05)\n"
SECONDS = 120


def interrupted_apply(stack, moment: Callable[[], bool], **overrides: object) -> None:
    """`terraform apply`, and Ctrl-C at the moment. Terraform leaves by itself then, and its state unlocked."""
    state = Path(stack.terraform.state)
    command = stack.terraform.generate_cmd_string(
        "apply", auto_approve=IsFlagged, state=state, **stack.options(**overrides)
    )
    log = state.with_name("interrupted.log")
    log.unlink(missing_ok=True)
    process = processes.start(
        command, name="terraform", state_dir=state.parent, log_path=log, cwd=stack.terraform.working_dir
    )
    try:
        await_that(lambda: process.poll() is not None or moment())
        assert process.poll() is None, process.log_tail()
        # As from a terminal: the whole group gets it, Terraform's provider too.
        os.killpg(process.members()[0], signal.SIGINT)
        assert process.wait(SECONDS) == 1
    finally:
        process.stop()
    assert "Interrupt received" in log.read_text()
    assert list(state.parent.glob(".*.lock.info")) == []


def await_that(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.05)


def apply(stack, **overrides: object) -> str:
    """`terraform apply`; what it says where it is refused, else nothing."""
    status, _, errors = stack.terraform.apply(skip_plan=True, **stack.options(**overrides))
    return " ".join(errors.split()) if status else ""


def untaint(stack) -> None:
    """Has Terraform keep what it would replace for not having seen the end of its creation."""
    state = stack.terraform.state
    paths = {"TF_CLI_ARGS_show": state, "TF_CLI_ARGS_untaint": f"-state={state}"}
    done = subprocess.run(
        UNTAINT, shell=True, cwd=stack.terraform.working_dir, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.stderr == ""
    kept = [instance for resource in stack.state()["resources"] for instance in resource["instances"]]
    assert [instance for instance in kept if instance.get("status") == "tainted"] == []


def endpoint(stack) -> dict:
    """What the account says of its endpoint, whatever Terraform knows of it; empty where there is none."""
    sagemaker = stack.account.client("sagemaker")
    for found in sagemaker.list_endpoints()["Endpoints"]:
        return sagemaker.describe_endpoint(EndpointName=found["EndpointName"])
    return {}


def endpoint_is(stack, status: str) -> bool:
    return endpoint(stack).get("EndpointStatus") == status


def archive(folder: Path, scale: float, code: str) -> bytes:
    """A release whose logits are `scale` times the mean colour; the code runs while it loads."""
    files = model_files(scale)
    files["code/inference.py"] += code.encode()
    return pack(folder / "model.tar.gz", files).read_bytes()


def answer(stack) -> list[float]:
    """The logits that the Lambda answers for a red picture."""
    event = {"url": stack.account.put_picture("red.png", picture((255, 0, 0)))}
    response = stack.account.client("lambda").invoke(
        FunctionName=stack.output("function_name"),
        Qualifier=stack.output("function_alias"),
        Payload=json.dumps(event).encode(),
    )
    answered = json.loads(response["Payload"].read())
    assert answered["statusCode"] == 200, answered
    return json.loads(answered["body"])[0]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Path:
    """Once this file is there, the releases that wait for it load."""
    return tmp_path_factory.mktemp("gate") / "loaded"


@pytest.fixture(scope="module")
def release(tmp_path_factory, loaded) -> bytes:
    return archive(tmp_path_factory.mktemp("release"), 10, LOADING.format(str(loaded)))


def test_ctrl_c_in_the_first_second(new_account):
    """What was being created may be there without Terraform's knowing: the next apply names it, and it is imported."""
    stack = new_account
    interrupted_apply(stack, lambda: stack.account.client("iam").list_roles()["Roles"] != [])
    untaint(stack)
    # Error: creating IAM Role (NAME): […] already exists. with ADDRESS, on […]
    said = apply(stack)
    unknown = re.findall(r"Error: creating [^(:]+\(([^)]+)\): (?:(?!Error:).)*[Ee]xist.*? with (\S+),", said)
    assert len(unknown) == said.count("Error:"), said
    for name, address in unknown:
        status, _, errors = stack.terraform.import_cmd(address, name, state=stack.terraform.state, **stack.options())
        assert status == 0, errors
    assert not unknown or apply(stack) == ""


def test_ctrl_c_while_the_endpoint_is_created(new_account, loaded, release):
    """Its creation goes on, and Terraform takes it over."""
    stack = new_account
    stack.build_image()
    key = stack.upload_archive(release)
    interrupted_apply(stack, lambda: endpoint_is(stack, "Creating"), release_key=key)
    loaded.touch()
    await_that(lambda: endpoint_is(stack, "InService"))
    untaint(stack)


def test_a_quota_of_ten_is_refused_and_the_next_apply_goes_on_without_reserving(new_account, release):
    stack = new_account
    created = endpoint(stack)["CreationTime"]
    key = stack.upload_archive(release)
    said = apply(stack, release_key=key)
    assert said.count("Error:") == 1
    assert "below its minimum value of [10]" in said
    assert apply(stack, release_key=key, **UNRESERVED) == ""
    assert answer(stack) == pytest.approx([10, 0, 0], abs=0.15)
    # The endpoint whose creation was interrupted.
    assert endpoint(stack)["CreationTime"] == created


def test_a_release_that_does_not_start_is_rolled_back_and_the_apply_says_so(new_account, tmp_path):
    stack = new_account
    before = endpoint(stack)["EndpointConfigName"]
    key = stack.upload_archive(archive(tmp_path, 10, "raise RuntimeError('this release cannot load')\n"))
    said = apply(stack, release_key=key, **UNRESERVED)
    assert said.count("Error:") == 1
    assert "rolled back" in said and before in said and "apply again" in said
    after = endpoint(stack)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", before)
    assert "this release cannot load" in after["FailureReason"]
    # The old configuration is there still, and answers; a release that starts is taken as ever.
    assert stack.account.client("sagemaker").describe_endpoint_config(EndpointConfigName=before)
    assert answer(stack) == pytest.approx([10, 0, 0], abs=0.15)
    mended = stack.upload_archive(archive(tmp_path, 20, ""))
    assert apply(stack, release_key=mended, **UNRESERVED) == ""
    assert endpoint(stack)["EndpointConfigName"] != before
    assert answer(stack) == pytest.approx([20, 0, 0], abs=0.3)


def test_ctrl_c_while_the_next_release_is_deployed(new_account, loaded, tmp_path):
    """The old release answers meanwhile. Once the new one is in service, the next apply cleans up after it."""
    stack = new_account
    loaded.unlink()
    key = stack.upload_archive(archive(tmp_path, -10, LOADING.format(str(loaded))))
    interrupted_apply(stack, lambda: endpoint_is(stack, "Updating"), release_key=key, **UNRESERVED)
    assert answer(stack) == pytest.approx([20, 0, 0], abs=0.3)
    loaded.touch()
    await_that(lambda: endpoint_is(stack, "InService"))
    assert apply(stack, release_key=key, **UNRESERVED) == ""
    assert answer(stack) == pytest.approx([-10, 0, 0], abs=0.15)
    assert stack.plan_status(release_key=key, **UNRESERVED) == 0
    # Nothing of what was interrupted or rolled back stands beside what is in use.
    account = stack.account
    assert len(account.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]) == 1
    assert len(account.client("lambda").list_functions()["Functions"]) == 1


def test_destroy_takes_leftovers_along(new_account):
    """Old versions, a delete marker and an upload that nobody finished in the bucket, and a second image."""
    stack = new_account
    s3, bucket = stack.account.client("s3"), stack.output("artifact_bucket")
    for body in (b"one", b"two"):
        s3.put_object(Bucket=bucket, Key="left/behind", Body=body)
    s3.delete_object(Bucket=bucket, Key="left/behind")
    s3.put_object(Bucket=bucket, Key="left/there", Body=b"three")
    s3.create_multipart_upload(Bucket=bucket, Key="left/unfinished")
    ecr = stack.account.client("ecr")
    [repository] = ecr.describe_repositories()["repositories"]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    ecr.put_image(
        repositoryName=repository["repositoryName"], imageManifest=json.dumps(manifest), imageTag="left-behind"
    )
    stack.destroy(**UNRESERVED)
    assert stack.state()["resources"] == []
    assert s3.list_buckets()["Buckets"] == []
    assert ecr.describe_repositories()["repositories"] == []
