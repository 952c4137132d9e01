"""Least privilege of every role, over the policies of a real plan; and that what is meant to notice a fault does."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from security import deployer_matrix, simulator
from security.__main__ import main
from security.calls import unrecorded
from security.lint import IN_ANOTHER, escalations, findings, unexplained
from security.matrix import FOLDER, boundary, failures, read_rows
from security.mutation import mutants, survivors, widened
from security.plan import ACCOUNT, BOUNDARY, NAME, boundaries, make_plan, planned_policies

ROOT = Path(__file__).resolve().parents[2]
ROLES = ["builder", "flow-logs", "hosting", "lambda", "notebook", "trainer", "training"]


@pytest.fixture(scope="module")
def plan():
    return make_plan()


@pytest.fixture(scope="module")
def policies(plan):
    return planned_policies(plan)


@pytest.fixture(scope="module")
def rows():
    return read_rows()


def test_every_role_of_the_plan_has_a_table_a_policy_and_a_trust(policies):
    tables = {path.stem for path in FOLDER.glob("*.yaml")}
    assert sorted(tables - {"boundary", "buckets", "endpoints", "key", "messages", "trust"}) == ROLES
    of_roles = {f"{kind} {role}" for kind in ("role", "trust") for role in ROLES}
    assert {key for key in policies if not key.startswith("arn:")} == {*of_roles, "endpoint s3"}
    resources = sorted(key.split(":")[2] for key in policies if key.startswith("arn:"))
    assert resources == ["kms", "s3", "s3", "sns", "sqs"]


def test_no_policy_of_the_plan_is_left_out(plan, policies):
    assert json.dumps(plan["planned_values"]).count(r"\"Statement\"") == len(policies)


def test_the_deployer_makes_the_roles_of_the_plan_and_no_other(plan):
    made = {grant.resource for grant in deployer_matrix.granted()["apply"] if grant.action == "iam:CreateRole"}
    assert made == {f"arn:aws:iam::{ACCOUNT}:role/{NAME}-{role}" for role in boundaries(plan)}


def test_every_role_of_the_plan_has_the_boundary(plan):
    assert boundaries(plan) == dict.fromkeys(ROLES, BOUNDARY)


def test_a_call_is_this_projects_code_or_on_a_page_of_aws(rows):
    for row in rows:
        if row.page:
            assert row.page.startswith("https://docs.aws.amazon.com/"), row
        elif row.allowed:
            assert (ROOT / row.reason).is_file(), row


def test_each_role_has_what_it_must_and_must_not(rows):
    for role in ROLES:
        own = [row for row in rows if row.table == role]
        assert {row.allowed for row in own} == {True, False}
        assert any(row.action == "iam:PassRole" and not row.allowed for row in own)


def test_the_matrix_holds(simulated, rows, policies):
    assert failures(rows, policies) == []


def test_a_statement_less_is_noticed(simulated, rows, policies):
    tried = list(mutants({**policies, "boundary": boundary()}))
    assert {mutant.whole for mutant in tried} == {True, False}
    assert [str(mutant) for mutant in survivors(rows, policies, tried)] == []


def test_a_wider_statement_is_noticed(simulated, rows, policies):
    tried = list(widened({**policies, "boundary": boundary()}))
    assert len(tried) > 100
    assert [str(mutant) for mutant in survivors(rows, policies, tried)] == []


def test_a_role_that_another_service_may_take_is_noticed(simulated, rows, policies):
    wider = copy.deepcopy(policies)
    wider["trust lambda"]["Statement"][0]["Principal"]["Service"] = ["lambda.amazonaws.com", "ec2.amazonaws.com"]
    assert "ec2.amazonaws.com" in {row.principal for row in failures(rows, wider)}


def test_linters_find_nothing_unexplained(policies):
    assert unexplained(findings({**policies, "boundary": boundary()})) == []
    assert escalations(policies) == []


def test_linters_find_a_mistake_and_an_escalation():
    statement = {
        "Effect": "Allow",
        "Action": ["iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction"],
        "Resource": "*",
    }
    misspelt = {"Effect": "Allow", "Action": "s3:GetObjekt", "Resource": "*"}
    policies = {"role mallory": {"Version": "2012-10-17", "Statement": [statement, misspelt]}}
    assert any("s3:GetObjekt" in finding or "UNKNOWN_ACTION" in finding for finding in unexplained(findings(policies)))
    assert any("privilege escalation" in way for way in escalations(policies))


@pytest.mark.parametrize(("effect", "said"), [("Allow", True), ("Deny", False)])
def test_a_kind_of_resource_that_another_statement_allows_is_said_to_be_there(effect, said):
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket"},
            {"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"},
        ],
    }
    [(_, issue, detail)] = findings({"role mallory": policy})
    assert (issue, detail.endswith(IN_ANOTHER)) == ("RESOURCE_MISMATCH", said)


def test_mutants_take_away_every_statement_and_every_part():
    statement = {
        "Sid": "Both",
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"s3:prefix": ["a", "b"]}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement, {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}
    before = json.dumps(policy)
    assert [str(mutant) for mutant in mutants({"p": policy})] == [
        "p without Both",
        "p without Both's Action s3:GetObject",
        "p without Both's Action s3:PutObject",
        "p without Both's Condition aws:SecureTransport",
        "p without Both's Condition s3:prefix",
        "p without Both's Condition s3:prefix a",
        "p without Both's Condition s3:prefix b",
        "p without statement 2",
    ]
    assert json.dumps(policy) == before


def test_a_request_that_aws_does_not_know_is_no_evidence(simulated):
    asked = simulator.Request(
        principal="arn:aws:iam::123456789012:role/pictures-lambda",
        action="s3:GetObjekt",
        resource="arn:aws:s3:::bucket/key",
        account="123456789012",
        context={},
        checked=True,
        identity=[],
        boundary=None,
        resourcePolicy=None,
        endpoint=None,
    )
    with pytest.raises(ValueError, match="s3:GetObjekt"):
        simulator.simulate({}, [asked])
    # A dropped condition key would make every must-not row hold.
    with pytest.raises(ValueError, match="s3:prefix"):
        simulator.simulate({}, [{**asked, "action": "s3:GetObject", "context": {"s3:prefix": "a"}}])


@pytest.mark.parametrize(("failed", "status"), [([], 0), (["failed: a vector"], 1)])
def test_the_vectors_are_a_command_too(failed, status, monkeypatch, capsys):
    monkeypatch.setattr("security.vectors.report", lambda slow: [*failed] if slow else ["fast"])
    assert main(["vectors", "--slow"]) == status
    assert capsys.readouterr().err.splitlines() == failed


def test_a_missing_record_is_named(capsys):
    assert main(["roles", "--calls", "nowhere.jsonl"]) == 2
    remedy = "run make demo, which records its own"
    assert capsys.readouterr().err == f"security: --calls nowhere.jsonl: no such file: {remedy}\n"


def test_the_report_prints_its_figures_and_names_a_call_that_no_row_has(simulated, monkeypatch, capsys, tmp_path, plan):
    monkeypatch.setattr("security.roles.make_plan", lambda: plan)
    monkeypatch.setattr("security.deployer_matrix.report", list)  # tests/security/test_deployer.py
    calls = tmp_path / "calls.jsonl"
    lines = [{"service": "s3", "action": name, "access_key": "trainer"} for name in ("GetObject", "DeleteObject")]
    calls.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["roles", "--calls", str(calls)]) == 1
    printed = capsys.readouterr()
    assert "2 actions of 1 roles recorded in a run: 1 in a row" in printed.out
    failed = printed.err.splitlines()
    assert failed[0] == "calls: in no row of the role: trainer: s3:DeleteObject"
    unseen = "calls: own code's, not recorded, and no reason why: trainer: "
    assert f"{unseen}s3:PutObject" in failed and all(line.startswith(unseen) for line in failed[1:])
    assert f"{len(failed) - 1} actions of these roles' own code not recorded in it: 0 with a reason" in printed.out


def test_what_a_demo_does_not_call_has_its_reason(rows):
    """The actions of the demo's own run on 2026-11-23; a job of SageMaker's is none of them."""
    recorded = {"notebook": {"s3:ListBucket", "s3:PutObject"}, "lambda": {"sagemaker:InvokeEndpoint"}}
    excused = {f"{row.table}: {row.action}" for row in rows if row.unseen}
    assert set(unrecorded(recorded, rows)) == excused


def test_a_damaged_record_is_named(monkeypatch, capsys, tmp_path, plan):
    monkeypatch.setattr("security.roles.make_plan", lambda: plan)
    calls = tmp_path / "calls.jsonl"
    calls.write_text("{}\n")
    assert main(["roles", "--calls", str(calls)]) == 2
    assert f"{calls} line 1: not a recorded call" in capsys.readouterr().err


def test_without_node_the_remedy_is_named(monkeypatch, capsys, tmp_path, plan):
    monkeypatch.setattr("security.roles.make_plan", lambda: plan)
    monkeypatch.setenv("PATH", "")
    calls = tmp_path / "calls.jsonl"
    calls.touch()
    assert main(["roles", "--calls", str(calls)]) == 2
    assert "install Node.js" in capsys.readouterr().err
