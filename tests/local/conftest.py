"""One local account without a data plane for all tests of its control plane."""

import json
from collections.abc import Callable, Iterator

import pytest

from local.account import Account, running_account


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """A shared account: every test uses names of its own."""
    with running_account(tmp_path_factory.mktemp("control-plane"), data_plane=False) as account:
        yield account


@pytest.fixture(scope="session")
def role_arns(control_plane: Account, create_role: Callable[[Account, str], str]) -> dict[str, str]:
    """Roles of the shared account that SageMaker and Lambda may assume, by the service's name."""
    return {service: create_role(control_plane, service) for service in ("sagemaker", "lambda")}


@pytest.fixture(scope="session")
def create_role() -> Callable[[Account, str], str]:
    """Makes, in an account, a role without permissions, named like the service that may assume it; returns its ARN."""

    def create(account: Account, service: str) -> str:
        trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = account.client("iam").create_role(RoleName=service, AssumeRolePolicyDocument=document)
        return role["Role"]["Arn"]

    return create
