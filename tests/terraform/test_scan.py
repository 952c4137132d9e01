"""checkov on the source and on the plan: neither sees everything, so nothing may fail in the union."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from security.plan import RELEASE

ROOT = Path(__file__).resolve().parents[2]
CHECKOV = ROOT / ".venv-scan" / "bin" / "checkov"
POLICIES = ROOT / "terraform" / "policies"
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "terraform" / "environments").glob("*.tfvars"))
MOST_SKIPS = 12
LEAST_PASSES = 150


def scan(*arguments: str) -> dict:
    """checkov's report; it opens no socket."""
    offline = ["--skip-download", "--download-external-modules", "false", "-o", "json"]
    command = [str(CHECKOV), *offline, "--external-checks-dir", str(POLICIES), *arguments]
    # A key's ARN is unknown at plan: unless told to count it as set, checkov takes every log group for unencrypted.
    environment = {**os.environ, "EVAL_TF_PLAN_AFTER_UNKNOWN": "true"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout, result.stderr
    # A policy that raises is logged, and counted as nothing.
    assert "Traceback" not in result.stderr, result.stderr
    return json.loads(result.stdout)


def failures(report: dict) -> list[str]:
    failed = report["results"]["failed_checks"]
    return [f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in failed]


def own(report: dict, result: str) -> set[tuple[str, str]]:
    """(policy, resource) of this project's policies."""
    checks = report["results"][f"{result}_checks"]
    return {(check["check_id"], check["resource"]) for check in checks if check["check_id"].startswith("CKV_IC_")}


def clean(report: dict, kind: str, request: pytest.FixtureRequest) -> None:
    summary = report["summary"]
    request.node.user_properties.append(("scan", json.dumps({"kind": kind, **summary})))
    assert failures(report) == []
    assert summary["parsing_errors"] == 0
    assert summary["passed"] > LEAST_PASSES, "the scan saw hardly anything"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_source_scan(environment, request):
    files = [f"terraform/environments/{name}.tfvars" for name in dict.fromkeys(["reference", environment])]
    variables = [argument for file in files for argument in ("--var-file", file)]
    report = scan("--framework", "terraform", "-d", "terraform", *variables)
    clean(report, "source", request)
    assert report["summary"]["skipped"] <= MOST_SKIPS
    for check in report["results"]["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"].split()) >= 5, f"{check['check_id']}: no reason to skip"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_plan_scan(stack, tmp_path, environment, request):
    plan = tmp_path / "plan"
    at_night = {"night": {"schedule": "cron(0 20 * * ? *)", "min_capacity": 2, "max_capacity": 2}}
    options = stack.options(environment, release_key=RELEASE, autoscaling_scheduled_actions=at_night)
    status, _, err = stack.terraform.plan(out=str(plan), **options)
    assert status == 2, err
    status, out, err = stack.terraform.cmd("show", str(plan), json=True, no_color=None)
    assert status == 0, err
    (tmp_path / "plan.json").write_text(out)
    plan_file = str(tmp_path / "plan.json")
    report = scan("--framework", "terraform_plan", "-f", plan_file, "--repo-root-for-plan-enrichment", "terraform")
    clean(report, "plan", request)
    # Each policy of the project says something about a plan; of instances in prod only where it is prod.
    passed = own(report, "passed")
    said = {policy for policy, _ in passed}
    assert {f"CKV_IC_{number}" for number in range(1, 9)} - said == (set() if environment == "prod" else {"CKV_IC_2"})
    scaled = {resource.split(".")[-2] for policy, resource in passed if policy == "CKV_IC_2"}
    assert ("aws_appautoscaling_scheduled_action" in scaled) == (environment == "prod"), scaled


def test_each_policy_passes_and_fails_what_it_should():
    """In tests/policies/POLICY/passing.tf and failing.tf each resource says by its name what must come of it."""
    folder = ROOT / "tests" / "policies"
    ids = {path.stem: policy_id(path) for path in POLICIES.glob("*.py") if "CKV_IC_" in path.read_text()}
    assert sorted(ids) == sorted(path.name for path in folder.iterdir() if path.is_dir())
    report = scan("--framework", "terraform", "-d", str(folder))
    for result, begin in (("passed", "passing"), ("failed", "failing")):
        written, found = set(), set()
        for file in folder.glob("*/*.tf"):
            for kind, name in re.findall(rf'^resource "(\w+)" "({begin}\w*)"', file.read_text(), re.MULTILINE):
                written.add((file.parent.name, f"{kind}.{name}"))
        for check in report["results"][f"{result}_checks"]:
            policy = Path(check["file_path"]).parent.name
            if check["check_id"] == ids[policy] and check["resource"].partition(".")[2].startswith(begin):
                found.add((policy, check["resource"]))
        assert {policy for policy, _ in written} == set(ids)
        assert found == written, result


def policy_id(path: Path) -> str:
    return path.read_text().partition('id="')[2].partition('"')[0]
