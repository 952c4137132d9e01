"""The rendered user-data: valid to cloud-init, systemd and Python, whatever the hyperparameters are."""

from __future__ import annotations

import ast
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.box import parse
from local.units import parse as parse_unit

# Terraform keeps every string in Unicode's composed form (NFC), so that is what can be expected to arrive.
PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=30).map(
    lambda text: unicodedata.normalize("NFC", text)
)
FLAG = st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", fullmatch=True)


def files(user_data: str) -> dict[str, str]:
    return {file["path"]: file["content"] for file in parse(user_data)["write_files"]}


def constants(script: str) -> dict[str, object]:
    """What a script assigns to upper-case names by literals."""
    found = {}
    for node in ast.parse(script).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_hyperparameters_become_arguments_in_the_rendered_script(render):
    script = files(render(hyperparameters={"epochs": "12", "learning-rate": 0.001, "freeze-backbone": False}))
    found = constants(script["/opt/trainer/start.py"])
    assert found["HYPERPARAMETERS"] == ["--epochs=12", "--freeze-backbone=false", "--learning-rate=0.001"]


@pytest.mark.parametrize(
    "value",
    ["", " ", "two words", "it's", '"quoted"', "$HOME", "${HOME}", "$(reboot)", "`reboot`", "%{ if true }", "%n",
     "a\\nb", "\\", "<&>", "#", ": ", "- x", "; reboot", "é ü 犬 🐕", "-1e-05", "tab\tand\nnewline"],
)  # fmt: skip
def test_any_value_arrives_as_it_was_given(render, value):
    script = files(render(hyperparameters={"note": value}))["/opt/trainer/start.py"]
    assert constants(script)["HYPERPARAMETERS"] == [f"--note={value}"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hyperparameters=st.dictionaries(FLAG, PRINTABLE, max_size=4), dataset=PRINTABLE, bucket=PRINTABLE)
def test_any_printable_text_survives_terraform_yaml_and_python(render, hyperparameters, dataset, bucket):
    script = files(render(hyperparameters=hyperparameters, dataset=dataset, bucket=bucket))["/opt/trainer/start.py"]
    found = constants(script)
    assert found["HYPERPARAMETERS"] == [f"--{key}={value}" for key, value in sorted(hyperparameters.items())]
    assert (found["DATASET"], found["BUCKET"]) == (dataset, bucket)


def test_the_scripts_know_their_account(render):
    written = files(render(bucket="artifacts", kms_key_arn="arn:key", log_group_name="/n/trainer", code_sha256="ab"))
    start, finish, ship = (constants(written[f"/opt/trainer/{name}.py"]) for name in ("start", "finish", "ship"))
    assert (start["BUCKET"], start["KMS_KEY_ARN"], start["CODE_SHA256"]) == ("artifacts", "arn:key", "ab")
    assert (finish["BUCKET"], finish["KMS_KEY_ARN"], ship["LOG_GROUP"]) == ("artifacts", "arn:key", "/n/trainer")
    assert start["RUN_ID"] == finish["RUN_ID"] != ""


def test_the_unit_restarts_within_limits_and_always_finishes(render):
    written = files(render(time_cap_seconds=600, region="eu-west-1"))
    unit = parse_unit("trainer.service", written["/etc/systemd/system/trainer.service"])
    assert unit.get("Unit", "ConditionPathExists") == "!/opt/trainer/done"
    assert unit.get("Unit", "OnFailure") == "trainer-finish.service"
    found = constants(written["/opt/trainer/start.py"])
    assert {"2", "75", "100"} < set(unit.get("Service", "RestartPreventExitStatus").split())
    assert unit.get("Service", "Restart") == "on-failure"
    assert int(unit.get("Unit", "StartLimitBurst")) == 3
    assert int(unit.get("Service", "RuntimeMaxSec")) > 600
    assert "AWS_DEFAULT_REGION=eu-west-1" in unit.get("Service", "Environment").split()
    assert found["TIME_CAP_SECONDS"] == 600


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_both_units(render, tmp_path):
    paths = []
    for path, content in files(render()).items():
        if path.endswith(".service"):
            paths.append(tmp_path / path.rpartition("/")[2])
            paths[-1].write_text(content)
    assert len(paths) == 2
    command = ["systemd-analyze", "verify", "--man=no", *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
