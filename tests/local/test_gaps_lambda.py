"""The account's Lambda control plane."""

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.account import Account, running_account


def _package() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("handler.py", "def handle(event, context): return event")
    return buffer.getvalue()


def _create(account: Account, role_arn: str, name: str, **settings: Any) -> Any:
    client = account.client("lambda")
    client.create_function(
        FunctionName=name,
        Role=role_arn,
        Runtime="python3.13",
        Handler="handler.handle",
        Code={"ZipFile": _package()},
        **settings,
    )
    return client


def test_settings_are_read_back_and_updated(control_plane: Account, role_arns: dict[str, str]) -> None:
    queues = [f"arn:aws:sqs:us-east-1:123456789012:{name}" for name in ("first", "second")]
    logging = {"LogFormat": "JSON", "LogGroup": "/aws/lambda/settings"}
    client = _create(
        control_plane,
        role_arns["lambda"],
        "settings",
        DeadLetterConfig={"TargetArn": queues[0]},
        LoggingConfig=logging,
    )
    before = client.get_function_configuration(FunctionName="settings")
    assert (before["DeadLetterConfig"], before["LoggingConfig"]) == ({"TargetArn": queues[0]}, logging)
    client.update_function_configuration(
        FunctionName="settings", DeadLetterConfig={"TargetArn": queues[1]}, TracingConfig={"Mode": "Active"}
    )
    after = client.get_function_configuration(FunctionName="settings")
    assert (after["DeadLetterConfig"], after["TracingConfig"]) == ({"TargetArn": queues[1]}, {"Mode": "Active"})
    assert after["LoggingConfig"] == logging


def test_provisioned_concurrency(control_plane: Account, role_arns: dict[str, str]) -> None:
    client = _create(control_plane, role_arns["lambda"], "provisioned", Publish=True)
    client.create_alias(FunctionName="provisioned", Name="live", FunctionVersion="1")
    client.put_function_concurrency(FunctionName="provisioned", ReservedConcurrentExecutions=5)
    live = {"FunctionName": "provisioned", "Qualifier": "live"}
    client.put_provisioned_concurrency_config(**live, ProvisionedConcurrentExecutions=3)
    config = client.get_provisioned_concurrency_config(**live)
    assert (config["RequestedProvisionedConcurrentExecutions"], config["Status"]) == (3, "READY")
    [listed] = client.list_provisioned_concurrency_configs(FunctionName="provisioned")["ProvisionedConcurrencyConfigs"]
    assert listed["FunctionArn"].endswith(":provisioned:live")
    client.delete_provisioned_concurrency_config(**live)
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        client.get_provisioned_concurrency_config(**live)


def test_what_provisioned_concurrency_aws_refuses(control_plane: Account, role_arns: dict[str, str]) -> None:
    client = _create(control_plane, role_arns["lambda"], "refused", Publish=True)
    client.update_function_configuration(FunctionName="refused", Description="second")
    client.publish_version(FunctionName="refused")
    client.put_function_concurrency(FunctionName="refused", ReservedConcurrentExecutions=5)
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    client.create_alias(FunctionName="refused", Name="weighted", FunctionVersion="1", RoutingConfig=weights)
    client.create_alias(FunctionName="refused", Name="unpublished", FunctionVersion="$LATEST")
    for qualifier, wanted, message in (
        ("1", 6, "greater than the reservedConcurrentExecution"),
        ("$LATEST", 1, "unpublished function versions"),
        ("unpublished", 1, "unpublished function versions"),
        ("weighted", 1, "Alias with weights"),
        ("absent", 1, "Cannot find alias arn"),
        ("3", 1, "Function not found"),
    ):
        with pytest.raises(ClientError, match=message):
            client.put_provisioned_concurrency_config(
                FunctionName="refused", Qualifier=qualifier, ProvisionedConcurrentExecutions=wanted
            )
    # The sum over a function's qualifiers counts, and reserved concurrency may not fall below it.
    for qualifier in ("1", "2"):
        client.put_provisioned_concurrency_config(
            FunctionName="refused", Qualifier=qualifier, ProvisionedConcurrentExecutions=2
        )
    with pytest.raises(ClientError, match="greater than the reservedConcurrentExecution"):
        client.put_provisioned_concurrency_config(
            FunctionName="refused", Qualifier="2", ProvisionedConcurrentExecutions=4
        )
    with pytest.raises(ClientError, match=r"total provisioned concurrency \[4\]"):
        client.put_function_concurrency(FunctionName="refused", ReservedConcurrentExecutions=3)


def test_reserved_concurrency_leaves_100_of_the_quota_unreserved(
    control_plane: Account, role_arns: dict[str, str]
) -> None:
    client = _create(control_plane, role_arns["lambda"], "greedy")
    with pytest.raises(ClientError, match=r"below its minimum value of \[100\]"):
        client.put_function_concurrency(FunctionName="greedy", ReservedConcurrentExecutions=901)


@pytest.fixture
def new_account() -> Iterator[Account]:
    with running_account(data_plane=False, lambda_concurrency_quota=10) as account:
        yield account


@pytest.mark.fault
def test_a_new_account_reserves_nothing(new_account: Account, create_role: Callable[[Account, str], str]) -> None:
    client = _create(new_account, create_role(new_account, "lambda"), "small", Publish=True)
    with pytest.raises(ClientError, match=r"below its minimum value of \[10\]"):
        client.put_function_concurrency(FunctionName="small", ReservedConcurrentExecutions=5)
    with pytest.raises(ClientError, match=r"below its minimum value of \[10\]"):
        client.put_provisioned_concurrency_config(
            FunctionName="small", Qualifier="1", ProvisionedConcurrentExecutions=1
        )
    client.put_function_concurrency(FunctionName="small", ReservedConcurrentExecutions=0)
    assert client.get_function_concurrency(FunctionName="small")["ReservedConcurrentExecutions"] == 0
