"""What bounds the cost of a training: the time, or what the money buys of it. Asked of the root module by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

TERRAFORM = Path(__file__).resolve().parents[2] / "terraform"


def evaluated(expression: str, tmp_path: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    (tmp_path / "cap.tfvars.json").write_text(json.dumps(variables))
    command = ["terraform", "console", f"-state={tmp_path / 'none.tfstate'}", "-var-file=environments/reference.tfvars"]
    return subprocess.run(
        [*command, f"-var-file={tmp_path / 'cap.tfvars.json'}"], input=expression, cwd=TERRAFORM, text=True,
        env={**os.environ, "AWS_REGION": "us-east-1"}, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"trainer_cost_cap_usd": 0.5, "trainer_usd_per_hour": 0.4}, 4500),
        ({"trainer_cost_cap_usd": 50, "trainer_usd_per_hour": 0.4}, 7200),
    ],
)
def test_the_smaller_cap_counts(tmp_path, variables, seconds):
    result = evaluated("local.trainer_cap_seconds", tmp_path, trainer_time_cap_seconds=7200, **variables)
    assert (result.stdout.strip(), result.returncode) == (str(seconds), 0), result.stderr


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"trainer_cost_cap_usd": 2}, "set trainer_usd_per_hour to that of m5.2xlarge"),
        ({"trainer_cost_cap_usd": 0.001, "trainer_usd_per_hour": 0.4}, "buys less than 60 seconds"),
    ],
)
def test_a_cap_that_bounds_nothing_is_refused(tmp_path, variables, remedy):
    result = evaluated("local.trainer_cap_seconds", tmp_path, **variables)
    said = re.sub(r"\x1b\[[0-9;]*m|│", " ", result.stderr)
    assert remedy in " ".join(said.split())


def test_a_run_is_one_of_its_data_and_not_of_its_cap(tmp_path):
    changes = ({}, {"trainer_time_cap_seconds": 600}, {"trainer_dataset": "cats"})
    first, same, other = (evaluated("local.trainer_run_id", tmp_path, **change).stdout for change in changes)
    assert re.fullmatch(r'"[0-9a-f]{16}"\n', first)
    assert first == same != other
