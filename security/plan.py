"""The policies of a plan that Terraform makes of the whole stack, against a local account where nothing exists yet."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local.account import REGION, running_account

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT = "123456789012"
NAME = "pictures"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
RELEASE = f"releases/{'0' * 64}/model.tar.gz"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/this"  # AWS chooses its name when it is made

Policy = dict[str, Any]


def make_plan() -> dict[str, Any]:
    """`terraform show -json` of a plan with everything in it: prod's variables, a release, a permissions boundary.

    Needs `make setup package`. Raises RuntimeError with Terraform's words where it fails.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_account(Path(scratch, "account"), data_plane=False) as account,
    ):
        variables = Path(scratch, "variables.tfvars.json")
        settings = {"name": NAME, "release_key": RELEASE, "permissions_boundary_arn": BOUNDARY}
        variables.write_text(json.dumps(settings))
        environments = ROOT / "terraform" / "environments"
        files = [environments / "reference.tfvars", environments / "prod.tfvars", variables]
        plan, state = Path(scratch, "plan"), Path(scratch, "terraform.tfstate")
        chosen = [f"-var-file={file}" for file in files]
        run_terraform(account.environment, "plan", "-lock=false", f"-state={state}", f"-out={plan}", *chosen)
        return json.loads(run_terraform(account.environment, "show", "-json", str(plan)))


def run_terraform(environment: Mapping[str, str], command: str, *arguments: str) -> str:
    """What a command on the root module prints; environment: of the account. RuntimeError where it fails."""
    quiet = [] if command == "show" else ["-input=false", "-no-color"]
    done = subprocess.run(
        ["terraform", f"-chdir={ROOT / 'terraform'}", command, *quiet, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"terraform {command}: {done.stderr}")
    return done.stdout


def planned_policies(plan: dict[str, Any]) -> dict[str, Policy]:
    """Policies by what they hold for: "role NAME", "trust NAME", "endpoint SERVICE" or the ARN of what has its own."""
    found: dict[str, Policy] = {}
    for resource in _resources(plan["planned_values"]["root_module"]):
        values = resource.get("values", {})
        match resource["type"]:
            case "aws_iam_role":
                found[f"trust {_short(values['name'])}"] = json.loads(values["assume_role_policy"])
            case "aws_iam_role_policy":
                found[f"role {_short(values['role'])}"] = json.loads(values["policy"])
            case "aws_kms_key":
                found[KEY] = json.loads(values["policy"])
            case "aws_s3_bucket_policy" | "aws_sns_topic" | "aws_sqs_queue":
                policy = json.loads(values["policy"])
                found[listed(policy["Statement"][0]["Resource"])[0]] = policy
            case "aws_vpc_endpoint" if "policy" in values:
                found[f"endpoint {values['service_name'].rpartition('.')[2]}"] = json.loads(values["policy"])
    return found


def boundaries(plan: dict[str, Any]) -> dict[str, str | None]:
    """The permissions boundary of each role."""
    resources = _resources(plan["planned_values"]["root_module"])
    roles = [resource["values"] for resource in resources if resource["type"] == "aws_iam_role"]
    return {_short(role["name"]): role["permissions_boundary"] for role in roles}


def listed(value: Any) -> list[Any]:
    """IAM, and the tables of rows, write a list of one as the one."""
    return value if isinstance(value, list) else [value]


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from _resources(child)


def _short(role: str) -> str:
    return role.removeprefix(f"{NAME}-")
