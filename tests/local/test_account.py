"""The account as a process, and its data plane: functions and endpoints that really run."""

import base64
import io
import json
import os
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local import hosting
from local.account import ROOT, Account, running_account

FUNCTION = """
import json, os, ssl, urllib.request

def handle(event, context):
    if "boom" in event:
        raise ValueError(event["boom"])
    if "fetch" in event:
        return len(urllib.request.urlopen(event["fetch"]).read())
    print(json.dumps({"reason": event.get("reason")}))
    return {
        "arn": context.invoked_function_arn,
        "version": context.function_version,
        "bird": os.environ["BIRD"],
        "hosts": json.loads(os.environ["PRIVATE_HOSTS"]),
    }
"""

INFERENCE = """
import json, os

def model_fn(model_dir):
    with open(os.path.join(model_dir, "answer.json")) as file:
        return json.load(file)

def input_fn(body, content_type):
    if bytes(body) == b"bad":
        raise ValueError("not a picture")
    return len(body)

def predict_fn(data, model):
    return [[model, os.environ["FLAVOUR"]]]

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""


def _until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.1)
    return value


def _children(folder: Path) -> list[int]:
    """Processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(process / "cwd")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if cwd.startswith(f"{folder}/") and state not in "ZX":
            found.append(int(process.name))
    return found


# The process


def test_the_command_announces_itself_serves_and_stops_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.account", "--port", "0", "--state-dir", str(tmp_path), "--no-data-plane"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        urls = json.loads(process.stdout.readline())
        sts = boto3.client("sts", endpoint_url=urls["endpoint_url"], region_name="us-east-1")
        assert sts.get_caller_identity()["Account"] == "123456789012"
        taken = subprocess.run(
            [*command[:4], urls["endpoint_url"].rpartition(":")[2], *command[5:6], str(tmp_path / "other")],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert taken.returncode == 2
    assert "cannot listen on port" in taken.stderr.splitlines()[-1]


def test_unsupported_calls_are_refused_at_once_and_by_name(control_plane: Account) -> None:
    for service, call in (
        ("accessanalyzer", "list_analyzers"),
        ("ec2", "describe_verified_access_groups"),
        ("iam", "list_service_specific_credentials"),
        ("lambda", "get_account_settings"),
        ("sagemaker", "list_code_repositories"),
    ):
        name = "".join(word.title() for word in call.split("_"))
        with pytest.raises(ClientError, match="EmulatorUnsupported") as refusal:
            getattr(control_plane.client(service), call)()
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert refusal.value.response["ResponseMetadata"]["RetryAttempts"] == 0
        # Of a service that is missing as a whole only the path is known.
        assert name in str(refusal.value) or "GET /analyzer" in str(refusal.value)


def test_calls_are_recorded(tmp_path: Path) -> None:
    with running_account(tmp_path, data_plane=False) as account:
        account.client("sts").get_caller_identity()
        account.client("s3").create_bucket(Bucket="recorded")
        with pytest.raises(ClientError):
            account.client("lambda").get_function(FunctionName="absent")
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [(call["service"], call["action"], call["status"]) for call in calls] == [
        ("sts", "GetCallerIdentity", 200),
        ("s3", "CreateBucket", 200),
        ("lambda", "GetFunction", 404),
    ]
    assert {call["access_key"] for call in calls} == {"testing"}


def test_a_call_that_is_sent_again_is_done_once(control_plane: Account) -> None:
    def as_call(name: str) -> str:
        client = control_plane.client("kms")
        # As botocore and the Go SDK do when the answer to a call was lost on its way.
        client.meta.events.register(
            "before-send.kms.CreateKey", lambda request, **_: request.headers.update({"amz-sdk-invocation-id": name})
        )
        return client.create_key()["KeyMetadata"]["KeyId"]

    assert as_call("first") == as_call("first") != as_call("second")


def test_an_account_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        running_account(tmp_path / "one", data_plane=False) as account,
        pytest.raises(RuntimeError, match="cannot listen on port"),
        running_account(tmp_path / "two", data_plane=False, port=int(account.endpoint_url.rpartition(":")[2])),
    ):
        pytest.fail("two accounts on one port")


# The data plane


@pytest.fixture(scope="module")
def account_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("account")


@pytest.fixture(scope="module")
def account(account_dir: Path, create_role: Callable[[Account, str], str]) -> Iterator[Account]:
    with running_account(account_dir) as running:
        for service in ("lambda", "sagemaker"):
            create_role(running, service)
        yield running
    assert _children(account_dir) == []


@pytest.fixture(scope="module")
def function(account: Account) -> str:
    """A published function behind the alias live, with a log group, a dead-letter queue and a concurrency of 5."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("handler.py", FUNCTION)
    account.client("sqs").create_queue(QueueName="dead-letters")
    account.client("logs").create_log_group(logGroupName="/aws/lambda/bird")
    client = account.client("lambda")
    client.create_function(
        FunctionName="bird",
        Role="arn:aws:iam::123456789012:role/lambda",
        Runtime="python3.13",
        Handler="handler.handle",
        Timeout=10,
        Code={"ZipFile": buffer.getvalue()},
        Environment={"Variables": {"BIRD": "wren"}},
        DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:123456789012:dead-letters"},
        Publish=True,
    )
    client.create_alias(FunctionName="bird", Name="live", FunctionVersion="1")
    client.put_function_concurrency(FunctionName="bird", ReservedConcurrentExecutions=5)
    return "bird"


def _invoke(account: Account, event: dict[str, Any], name: str = "bird", **options: Any) -> tuple[Any, dict[str, Any]]:
    response = account.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event), **options)
    return json.loads(response["Payload"].read() or "null"), response


def test_an_alias_runs_the_version_it_points_at(account: Account, function: str) -> None:
    answer, response = _invoke(account, {}, Qualifier="live")
    assert answer["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:bird:live"
    assert (answer["version"], response["ExecutedVersion"], answer["bird"]) == ("1", "1", "wren")
    assert [host["cidr"] for host in answer["hosts"]] == ["127.0.0.1/32"]

    changed = {"Variables": {"BIRD": "robin"}}
    account.client("lambda").update_function_configuration(FunctionName=function, Environment=changed)
    assert _invoke(account, {})[0]["bird"] == "robin"
    assert _invoke(account, {}, name="arn:aws:lambda:us-east-1:123456789012:function:bird:live")[0]["bird"] == "wren"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        _invoke(account, {}, Qualifier="absent")


def test_errors_the_log_tail_and_a_dry_run(account: Account, function: str) -> None:
    error, response = _invoke(account, {"boom": "no such bird"}, LogType="Tail", Qualifier="live")
    assert response["FunctionError"] == "Unhandled"
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such bird")
    assert "ValueError: no such bird" in base64.b64decode(response["LogResult"]).decode()
    assert _invoke(account, {"boom": "x"}, InvocationType="DryRun")[1]["StatusCode"] == 204


def test_log_lines_reach_cloudwatch_and_its_metric_filters(account: Account, function: str) -> None:
    logs, cloudwatch = account.client("logs"), account.client("cloudwatch")
    logs.put_metric_filter(
        logGroupName="/aws/lambda/bird",
        filterName="denied",
        filterPattern='{ $.reason = "fetch_denied" }',
        metricTransformations=[{"metricNamespace": "bird", "metricName": "DeniedFetches", "metricValue": "1"}],
    )
    for reason in ("fetch_denied", "other", "fetch_denied"):
        _invoke(account, {"reason": reason}, Qualifier="live")
    messages = [event["message"] for event in logs.filter_log_events(logGroupName="/aws/lambda/bird")["events"]]
    assert sum('"fetch_denied"' in message for message in messages) == 2
    assert any(message.startswith("REPORT RequestId") for message in messages)
    now = time.time()
    [point] = cloudwatch.get_metric_statistics(
        Namespace="bird",
        MetricName="DeniedFetches",
        StartTime=now - 3600,
        EndTime=now + 3600,
        Period=7200,
        Statistics=["Sum"],
    )["Datapoints"]
    assert point["Sum"] == 2.0


def test_a_missing_log_group_is_made_only_by_a_role_that_may(account: Account, function: str) -> None:
    logs, iam = account.client("logs"), account.client("iam")
    logs.delete_log_group(logGroupName="/aws/lambda/bird")
    _invoke(account, {}, Qualifier="live")
    assert logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/bird")["logGroups"] == []
    statement = {"Effect": "Allow", "Action": "logs:CreateLogGroup", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="lambda", PolicyName="logs", PolicyDocument=document)
    _invoke(account, {}, Qualifier="live")
    [group] = logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/bird")["logGroups"]
    assert group["logGroupName"] == "/aws/lambda/bird"


def test_an_event_that_keeps_failing_ends_in_the_dead_letter_queue(account: Account, function: str) -> None:
    _, response = _invoke(account, {"boom": "again"}, InvocationType="Event", Qualifier="live")
    assert response["StatusCode"] == 202
    sqs = account.client("sqs")
    url = sqs.get_queue_url(QueueName="dead-letters")["QueueUrl"]
    [message] = _until(lambda: sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages"))
    assert json.loads(message["Body"]) == {"boom": "again"}
    assert "again" in message["MessageAttributes"]["ErrorMessage"]["StringValue"]


def test_reserved_concurrency_throttles(account: Account, function: str) -> None:
    client = account.client("lambda")
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    try:
        with pytest.raises(client.exceptions.TooManyRequestsException) as refusal:
            client.invoke(FunctionName=function, Qualifier="live")
        assert refusal.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert int(refusal.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) > 0
    finally:
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=5)


def test_a_function_fetches_a_picture_over_trusted_https(account: Account, account_dir: Path, function: str) -> None:
    url = account.put_picture("a bird.png", b"picture")
    assert url.startswith(f"{account.pictures_url}/")
    assert _invoke(account, {"fetch": url}, Qualifier="live")[0] == len(b"picture")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(url, context=ssl.create_default_context())


def _archive(answer: Any, inference: str = INFERENCE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (("answer.json", json.dumps(answer)), ("code/inference.py", inference)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _release(account: Account, name: str, archive: bytes) -> str:
    """The name of an endpoint configuration that serves an archive."""
    s3, sagemaker = account.client("s3"), account.client("sagemaker")
    s3.create_bucket(Bucket="releases")
    s3.put_object(Bucket="releases", Key=f"{name}.tar.gz", Body=archive)
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn="arn:aws:iam::123456789012:role/sagemaker",
        PrimaryContainer={
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312",
            "ModelDataUrl": f"s3://releases/{name}.tar.gz",
            "Environment": {"FLAVOUR": "plain"},
        },
    )
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.xlarge"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[variant | {"InitialInstanceCount": 1}]
    )
    return name


@pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting")
def test_the_life_of_an_endpoint(account: Account, account_dir: Path) -> None:
    sagemaker, runtime = account.client("sagemaker"), account.client("sagemaker-runtime")

    def settled() -> dict[str, Any] | None:
        endpoint = sagemaker.describe_endpoint(EndpointName="bird")
        return endpoint if endpoint["EndpointStatus"] not in ("Creating", "Updating") else None

    def answer() -> Any:
        response = runtime.invoke_endpoint(
            EndpointName="bird", Body=b"picture", ContentType="image/png", InferenceId="followed-bird"
        )
        assert (response["ContentType"], response["InvokedProductionVariant"]) == ("application/json", "AllTraffic")
        return json.loads(response["Body"].read())

    sagemaker.create_endpoint(EndpointName="bird", EndpointConfigName=_release(account, "wren", _archive("wren")))
    assert sagemaker.describe_endpoint(EndpointName="bird")["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="not found"):
        runtime.invoke_endpoint(EndpointName="bird", Body=b"picture")
    with pytest.raises(ClientError, match="in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="bird")
    created = _until(settled)
    assert created["EndpointStatus"] == "InService", created.get("FailureReason")
    assert answer() == [["wren", "plain"]]
    assert any("followed-bird" in log.read_text() for log in (account_dir / "logs").glob("endpoint-*.log"))

    with pytest.raises(runtime.exceptions.ModelError) as refusal:
        runtime.invoke_endpoint(EndpointName="bird", Body=b"bad", ContentType="image/png")
    error = refusal.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (error["OriginalStatusCode"], "Traceback" in error["OriginalMessage"]) == (500, False)

    broken = _release(account, "broken", _archive("broken", "raise RuntimeError('this archive cannot load')"))
    sagemaker.update_endpoint(EndpointName="bird", EndpointConfigName=broken)
    assert sagemaker.describe_endpoint(EndpointName="bird")["EndpointStatus"] == "Updating"
    assert answer() == [["wren", "plain"]]
    rolled_back = _until(settled)
    assert (rolled_back["EndpointStatus"], rolled_back["EndpointConfigName"]) == ("InService", "wren")
    assert "this archive cannot load" in rolled_back["FailureReason"]
    assert answer() == [["wren", "plain"]]

    robin = _release(account, "robin", _archive("robin"))
    sagemaker.update_endpoint(EndpointName="bird", EndpointConfigName=robin)
    updated = _until(settled)
    assert (updated["EndpointStatus"], updated["EndpointConfigName"]) == ("InService", "robin")
    assert "FailureReason" not in updated
    assert answer() == [["robin", "plain"]]

    sagemaker.delete_endpoint(EndpointName="bird")
    assert _until(lambda: _children(account_dir / "endpoints") == [])
    with pytest.raises(ClientError, match="not found"):
        runtime.invoke_endpoint(EndpointName="bird", Body=b"picture")

    sagemaker.create_endpoint(EndpointName="bird", EndpointConfigName="broken")
    assert _until(settled)["EndpointStatus"] == "Failed"
    sagemaker.delete_endpoint(EndpointName="bird")
