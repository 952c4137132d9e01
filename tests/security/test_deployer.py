"""The deployer's policies: derived from a recorded run and a reviewed table, and held against the same matrix."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_sentry.querying.actions import get_action_data

from security import deployer_matrix, deployer_policy, recording
from security.__main__ import main
from security.deployer import Grant, characters, grants, policy, read_recorded, read_table, reference, split
from security.lint import escalations, findings, unexplained
from security.matrix import IAM_DECIDES, failures
from security.mutation import mutants, survivors, widened
from security.plan import KEY, listed
from security.recording import PHASES

ROOT = Path(__file__).resolve().parents[2]
TABLE = {
    "named": {"arn:aws:sqs:us-east-1:1:pictures": None, "arn:aws:s3:::pictures": None, "arn:aws:s3:::pictures/*": None},
    "tagged": ["arn:aws:ec2:us-east-1:1:subnet/*", "arn:aws:ec2:us-east-1:1:vpc/*"],
    "creates": {"ec2:CreateSubnet": "subnet"},
    "conditions": [],
    "underived": {"sts:GetCallerIdentity": "everybody may"},
    "also": [],
    "name": "pictures",
    "region": "us-east-1",
}


@pytest.fixture(scope="module")
def phases():
    return deployer_matrix.granted()


@pytest.fixture(scope="module")
def policies(phases):
    return deployer_matrix.deployer_policies(phases)


@pytest.fixture(scope="module")
def rows(phases):
    return deployer_matrix.deployer_rows(phases)


def known(policies):
    return {**policies, KEY: IAM_DECIDES}


def test_the_matrix_holds(simulated, rows, policies):
    assert {row.allowed for row in rows} == {True, False}
    assert [str(row) for row in failures(rows, known(policies))] == []


def test_a_statement_less_and_a_wider_one_are_noticed(simulated, rows, policies):
    tried = [*mutants(policies), *widened(policies)]
    assert {mutant.document for mutant in tried} == set(policies)
    assert [str(mutant) for mutant in survivors(rows, known(policies), tried)] == []


@pytest.mark.parametrize(
    ("statement", "noticed"),
    [
        ({"Action": "iam:PassRole", "Resource": "*"}, "iam:PassRole on arn:aws:iam::123456789012:role/administrator"),
        (
            {"Action": "iam:PutRolePolicy", "Resource": "*"},
            "iam:PutRolePolicy on arn:aws:iam::123456789012:role/pictures-",
        ),
        (
            {"Action": "iam:CreatePolicyVersion", "Resource": "*"},
            "iam:CreatePolicyVersion on arn:aws:iam::123456789012",
        ),
        ({"Action": "iam:DeleteRolePermissionsBoundary", "Resource": "*"}, "iam:DeleteRolePermissionsBoundary on"),
    ],
)
def test_a_way_to_more_rights_is_noticed_in_a_policy_and_in_the_boundary(simulated, rows, policies, statement, noticed):
    hole = {"Sid": "Hole", "Effect": "Allow", **statement}
    about = [row for row in rows if row.action == statement["Action"]]
    for document in ("role deployer-apply", "deployer boundary"):
        wider = {**policies, document: {"Version": "2012-10-17", "Statement": [*policies[document]["Statement"], hole]}}
        failed = failures(about, known(wider))
        assert any(noticed in str(row) and not row.allowed for row in failed), document


def test_linters_find_nothing_unexplained(policies):
    assert unexplained(findings(policies), deployer_matrix.EXPLAINED) == []
    assert escalations(policies) == []


def test_nothing_is_granted_that_is_neither_recorded_nor_in_the_table_with_its_reason_and_page(phases):
    table, recorded = read_table(deployer_matrix.NAMES), read_recorded()
    for entry in table["also"]:
        assert entry["by"] and set(entry["in"]) <= set(PHASES), entry
        assert entry["page"].startswith(("https://docs.aws.amazon.com/", "https://developer.hashicorp.com/")), entry
    for phase, granted in phases.items():
        reviewed = {action for entry in table["also"] if phase in entry["in"] for action in listed(entry["do"])}
        actions = {grant.action for grant in granted}
        assert actions <= recorded[phase] | reviewed
        assert recorded[phase] - actions == set(table["underived"]) & recorded[phase] - reviewed


@pytest.mark.slow
def test_what_was_recorded_is_what_terraform_calls():
    assert recording.record() == recording.read()


def test_everything_is_granted_only_where_aws_knows_no_resource(phases):
    everything = {grant for granted in phases.values() for grant in granted if grant.resource == "*"}
    assert everything
    for grant in everything:
        assert reference(grant.action) == {"*"}
        assert ("StringEquals", "aws:RequestedRegion", ("us-east-1",)) in grant.condition


def test_planning_reads_and_holds_the_states_lock_and_no_more(phases):
    def level(action):
        service, _, name = action.partition(":")
        return get_action_data(service, name)[service][0]["access_level"]

    others = {grant for grant in phases["plan"] if level(grant.action) not in ("List", "Read")}
    assert {grant.action for grant in others} == {"kms:Decrypt", "s3:DeleteObject", "s3:PutObject"}
    on = {grant.resource.rpartition("/")[0] for grant in others if grant.action != "kms:Decrypt"}
    assert on == {"arn:aws:s3:::terraform-state"}


def test_a_call_is_granted_on_the_stacks_resources_of_its_kind():
    assert grants("apply", ["sqs:SendMessage"], TABLE) == {Grant("sqs:SendMessage", "arn:aws:sqs:us-east-1:1:pictures")}
    # A bucket is no object, an object no bucket.
    assert grants("apply", ["s3:GetObject"], TABLE) == {Grant("s3:GetObject", "arn:aws:s3:::pictures/*")}
    assert grants("apply", ["s3:DeleteBucket"], TABLE) == {Grant("s3:DeleteBucket", "arn:aws:s3:::pictures")}
    [listing] = grants("apply", ["sqs:ListQueues"], TABLE)
    assert (listing.resource, listing.condition) == ("*", (("StringEquals", "aws:RequestedRegion", ("us-east-1",)),))
    assert grants("apply", ["sts:GetCallerIdentity"], TABLE) == set()


def test_what_is_made_brings_its_tag_and_what_is_there_has_it():
    keys = {grant.resource: grant.condition[0][1] for grant in grants("apply", ["ec2:CreateSubnet"], TABLE)}
    assert keys == {
        "arn:aws:ec2:us-east-1:1:subnet/*": "aws:RequestTag/Project",
        "arn:aws:ec2:us-east-1:1:vpc/*": "aws:ResourceTag/Project",
    }


def test_a_call_that_aws_does_not_have_or_the_stack_has_nothing_for_is_named():
    with pytest.raises(ValueError, match="sqs:SendMassage: AWS's reference has no such action"):
        grants("apply", ["sqs:SendMassage"], TABLE)
    with pytest.raises(ValueError, match=r"sns:Publish: grants\.yaml has no resource"):
        grants("apply", ["sns:Publish"], TABLE)


NAME = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=3, max_size=60)
GRANTS = st.sets(
    st.builds(
        Grant,
        st.sampled_from(["s3:GetObject", "s3:PutObject", "ec2:DeleteVpc", "iam:PassRole"]),
        NAME,
        st.sampled_from([(), (("StringEquals", "aws:ResourceTag/Project", ("pictures",)),)]),
    ),
    min_size=1,
    max_size=60,
)


def pieces(documents):
    return sorted(
        (action, resource, json.dumps(statement.get("Condition")))
        for document in documents
        for statement in document["Statement"]
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    )


@given(GRANTS)
def test_a_policy_is_its_grants_and_its_parts_are_the_policy(granted):
    whole = policy(granted)
    assert [piece[:2] for piece in pieces([whole])] == sorted((grant.action, grant.resource) for grant in granted)
    parts = split(whole, limit=5000)
    assert pieces(parts) == pieces([whole])
    assert all(characters(part) <= 5000 for part in parts)
    sids = [statement["Sid"] for part in parts for statement in part["Statement"]]
    assert len(sids) == len(set(sids))


def test_a_statement_that_is_too_long_is_cut_among_its_actions():
    actions = [f"s3:Get{number:04}" for number in range(40)]
    whole = {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "S", "Effect": "Allow", "Action": actions, "Resource": "*"}],
    }
    parts = split(whole, limit=300)
    assert len(parts) > 2 and all(characters(part) <= 300 for part in parts)
    assert pieces(parts) == pieces([whole])


ACTIONS = st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,9}:[A-Z][A-Za-z0-9]{0,19}", fullmatch=True), min_size=1)


@given(st.fixed_dictionaries(dict.fromkeys(PHASES, ACTIONS)))
def test_a_record_is_read_as_it_was_written(tmp_path_factory, recorded):
    path = tmp_path_factory.mktemp("recorded") / "recorded.yaml"
    recording.write(recorded, path)
    assert recording.read(path) == recorded
    assert [left.name for left in path.parent.iterdir()] == ["recorded.yaml"]


def test_the_documents_are_what_iam_takes_and_one_is_no_leftover(tmp_path, capsys):
    (tmp_path / "apply-99.json").write_text("{}")
    state = "s3://terraform-state/pictures.tfstate"
    assert main(["deployer-policy", "--account", "123456789012", "--output", str(tmp_path), "--state", state]) == 0
    documents = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert {stem.partition("-")[0] for stem in documents} == {"plan", "apply", "destroy", "deployer", "workload"}
    assert "apply-99" not in documents
    assert all(characters(document) <= 6144 for document in documents.values())
    assert "terraform-state/pictures.tfstate.tflock" in json.dumps(
        [documents[stem] for stem in documents if "plan" in stem]
    )
    printed = capsys.readouterr().out
    assert all(f"{stem}.json" in printed for stem in documents)
    assert not re.search(r"\{\w+\}", json.dumps(documents))


def test_the_boundary_of_the_roles_it_makes_knows_one_stack():
    filled = deployer_policy.names("123456789012", "dogs", "eu-west-1", None, None)
    boundary = deployer_policy.deployer_documents(filled)["workload-boundary"]
    resources = [one for statement in boundary["Statement"] for one in listed(statement["Resource"])]
    others = {one for one in resources if not re.search(r"[:/]dogs", one)}
    assert len(resources) > 15 and others == {
        "*",
        "arn:aws:ec2:eu-west-1:123456789012:*",
        "arn:aws:ecr:eu-west-1:*:repository/*",
        "arn:aws:kms:eu-west-1:123456789012:key/*",  # by its tag
        "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/*",
    }
    [handing_on] = [statement for statement in boundary["Statement"] if statement["Action"] == "iam:PassRole"]
    assert handing_on["Resource"] == "arn:aws:iam::123456789012:role/dogs-training"
    everywhere = {
        action
        for statement in boundary["Statement"]
        if statement["Resource"] == "*"
        for action in listed(statement["Action"])
    }
    assert {action.partition(":")[0] for action in everywhere} == {"cloudwatch", "ec2", "ecr", "logs", "xray"}


def test_without_a_state_in_s3_no_bucket_is_granted_for_it():
    names = deployer_policy.names("123456789012", "pictures", "us-east-1", None, None)
    assert "tflock" not in json.dumps(deployer_policy.deployer_documents(names))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--account", "12"], "--account 12: give the twelve digits"),
        (["--account", "123456789012", "--name", "Pictures"], "--name Pictures: give the stack's name"),
        (["--account", "123456789012", "--region", "*"], "--region *: give an AWS region"),
        (["--account", "123456789012", "--region", "us-gov-west-1"], "give an AWS region of the partition aws"),
        (["--account", "123456789012", "--output", "/dev/null/out"], "--output /dev/null/out: Not a directory: give"),
        (["--account", "123456789012", "--state", "bucket/key"], "--state bucket/key: give s3://bucket/key"),
        (
            ["--account", "123456789012", "--boundary-arn", "arn:aws:iam::999999999999:policy/b"],
            "of account 123456789012",
        ),
    ],
)
def test_a_mistake_in_the_call_is_named(arguments, remedy, capsys, tmp_path):
    assert main(["deployer-policy", "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert remedy in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


WILD = st.text("abc012-.:/*?${}\"' \n", min_size=1, max_size=3)


@given(st.integers(0, 3), st.integers(0, 20), WILD)
def test_nothing_that_a_policy_would_read_as_more_gets_into_one(which, place, inserted):
    given_values = ["123456789012", "pictures", "us-east-1", "s3://terraform-state/pictures.tfstate"]
    value = given_values[which]
    given_values[which] = value[:place] + inserted + value[place:]
    account, name, region, state = given_values
    try:
        names = deployer_policy.names(account, name, region, None, state)
    except ValueError as refused:
        assert given_values[which] in str(refused)
        return
    assert not any(character in value for value in names.values() for character in '*?${}"\n')
