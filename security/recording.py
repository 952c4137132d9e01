"""A run of Terraform against a local account, recorded: which API calls it takes to plan, to apply and to destroy.

    python -m security record-deployer

Everything of the stack that is optional is there, and what Terraform changes in place is changed once. Each command has
an access key of its own, so that its calls can be told apart.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bundle.archives import write_if_changed
from local.account import REGION, running_account
from security.calls import recorded_actions
from security.plan import ACCOUNT, BOUNDARY, NAME, RELEASE, ROOT, run_terraform

RECORDED = Path(__file__).with_name("tables") / "deployer" / "recorded.yaml"

PHASES = ("plan", "apply", "destroy")
ACCESS_KEYS = {phase: f"deployer-{phase}" for phase in PHASES}

BUCKET = f"{NAME}-{ACCOUNT}-{REGION}-artifacts"
PRIVATE_HOST = {"host": "pictures.internal", "port": 443, "cidr": "10.0.0.0/24"}
NIGHT = {"schedule": "cron(0 20 * * ? *)", "min_capacity": 1, "max_capacity": 1}
# Whatever is there only on demand.
OPTIONAL: dict[str, Any] = {
    "alarm_emails": ["somebody@example.com"],
    "autoscaling_scheduled_actions": {"evening": NIGHT, "night": NIGHT},
    "create_autoscaling_service_linked_role": True,
    "name": NAME,
    "permissions_boundary_arn": BOUNDARY,
    "private_hosts": [PRIVATE_HOST],
    "release_key": RELEASE,
    "sagemaker_log_groups": True,
    "trainer_spot": True,
}
# What an operator changes in the life of a stack, and what a new version of this project changes.
CHANGED: dict[str, Any] = {
    "alarm_emails": [],
    "autoscaling_max_capacity": 4,
    "autoscaling_scheduled_actions": {"night": {**NIGHT, "schedule": "cron(0 21 * * ? *)"}},
    "autoscaling_target_invocations_per_minute": 60,
    "endpoint_instance_type": "ml.c5.xlarge",
    "environment": "development",  # a tag on everything
    "interface_endpoints": False,
    "lambda_package_path": "CODE",
    "lambda_provisioned_concurrency": 2,
    "lambda_reserved_concurrency": 4,
    "log_retention_days": 30,
    "private_hosts": [{**PRIVATE_HOST, "cidr": "10.0.1.0/24"}],
    "release_key": RELEASE.replace("0", "1"),
    "sagemaker_log_groups": False,
    "trainer_instance_type": "m5.xlarge",
    "trainer_spot": False,
}


def record() -> dict[str, set[str]]:
    """IAM actions by phase. Needs `make setup package`. Raises RuntimeError with Terraform's words where it fails."""
    with tempfile.TemporaryDirectory() as scratch, running_account(Path(scratch, "account"), data_plane=False) as local:
        folder = Path(scratch)
        code = folder / "code.zip"
        shutil.copy(ROOT / "build" / "lambda.zip", code)
        with code.open("ab") as file:
            file.write(b"another version")

        def terraform(phase: str, settings: dict[str, Any], *arguments: str) -> None:
            variables = folder / "variables.tfvars.json"
            variables.write_text(json.dumps(settings).replace("CODE", os.path.relpath(code, ROOT / "terraform")))
            environments = ROOT / "terraform" / "environments"
            files = [environments / "reference.tfvars", environments / "local.tfvars", variables]
            chosen = [f"-state={folder / 'terraform.tfstate'}", "-lock=false", *(f"-var-file={file}" for file in files)]
            run_terraform(local.environment_of(ACCESS_KEYS[phase]), phase, *arguments, *chosen)

        terraform("apply", {**OPTIONAL, "release_key": None}, "-auto-approve")
        for settings in (OPTIONAL, CHANGED):
            local.client("s3").put_object(Bucket=BUCKET, Key=settings["release_key"], Body=b"an archive")
        terraform("apply", OPTIONAL, "-auto-approve")
        terraform("plan", OPTIONAL)
        terraform("apply", {**OPTIONAL, **CHANGED}, "-auto-approve")
        terraform("destroy", {**OPTIONAL, **CHANGED}, "-auto-approve")
        recorded = recorded_actions(folder / "account" / "calls.jsonl", ACCESS_KEYS.values())
    return {phase: recorded[key] for phase, key in ACCESS_KEYS.items()}


def write(recorded: Mapping[str, set[str]], path: Path = RECORDED) -> None:
    """As YAML that can be read: phase, service, operations by IAM's names."""
    table: dict[str, dict[str, list[str]]] = {}
    for phase, actions in recorded.items():
        for service, _, operation in sorted(action.partition(":") for action in actions):
            table.setdefault(phase, {}).setdefault(service, []).append(operation)
    head = "# What Terraform called in a run against the local account: python -m security record-deployer\n"
    text = head + yaml.safe_dump(table, default_flow_style=None, sort_keys=False, width=120)
    write_if_changed(path, text.encode())


def read(path: Path = RECORDED) -> dict[str, set[str]]:
    """What write() wrote."""
    return {
        phase: {f"{service}:{operation}" for service, operations in services.items() for operation in operations}
        for phase, services in yaml.safe_load(path.read_text()).items()
    }
