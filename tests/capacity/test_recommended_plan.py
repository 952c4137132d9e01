"""Terraform plans what is recommended: in an account on this machine, with the real provider."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from capacity import configuration
from capacity.__main__ import REFERENCE, main
from capacity.tfvars import TERRAFORM_DIR
from local.account import running_account
from security.plan import RELEASE


@pytest.mark.slow
def test_the_plan_has_the_figures(capsys, tmp_path):
    trace, variables, plan = tmp_path / "hour.csv", tmp_path / "capacity.auto.tfvars", tmp_path / "plan"
    trace.write_text(
        "time,count\n" + "".join(f"{60 * minute},{1500 if minute > 30 else 240}\n" for minute in range(60))
    )
    assert main(["recommend", "--trace", str(trace)]) == 0
    variables.write_text(capsys.readouterr().out)
    files = [REFERENCE, TERRAFORM_DIR / "environments" / "local.tfvars", variables]
    with running_account(state_dir=tmp_path / "account", data_plane=False) as account:

        def terraform(*arguments: str | Path) -> str:
            command = ["terraform", f"-chdir={TERRAFORM_DIR}", *map(str, arguments)]
            ran = subprocess.run(command, env=os.environ | account.environment, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            assert "undeclared" not in ran.stdout + ran.stderr
            return ran.stdout

        options = [f"-var-file={file}" for file in files]
        state = f"-state={tmp_path / 'terraform.tfstate'}"
        terraform("plan", "-input=false", "-no-color", state, f"-out={plan}", f"-var=release_key={RELEASE}", *options)
        changes = json.loads(terraform("show", "-json", plan))["resource_changes"]
    planned = {change["type"]: change["change"]["after"] for change in changes}
    configured = configuration.read([REFERENCE, variables])
    target = planned["aws_appautoscaling_target"]
    assert target["min_capacity"] == configured.autoscaling_min_capacity
    assert target["max_capacity"] == configured.autoscaling_max_capacity
    [policy] = planned["aws_appautoscaling_policy"]["target_tracking_scaling_policy_configuration"]
    assert policy["target_value"] == configured.autoscaling_target_invocations_per_minute != 30
    assert policy["scale_in_cooldown"] == configured.autoscaling_scale_in_cooldown_seconds
    function = planned["aws_lambda_function"]
    assert function["reserved_concurrent_executions"] == configured.lambda_reserved_concurrency
