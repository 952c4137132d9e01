"""Who may do what, read from the real provider's plan: roles, trust, the key's policy, the ways into the network.

The plan is of a root of its own with the modules that hold policies, in an account where nothing exists yet: everything
asserted here is therefore known before anything is made, and what a scanner of the plan sees is the truth.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"

ACCOUNT = "123456789012"
REGION = "us-east-1"
NAME = "pictures"
BUCKET = f"{NAME}-{ACCOUNT}-{REGION}-artifacts"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
WORKLOADS = ["builder", "flow-logs", "hosting", "lambda", "notebook", "trainer", "training"]

# AWS has no resource level for these; everything else names its resource.
WITHOUT_RESOURCE_LEVEL = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "logs:DescribeLogGroups",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}

CONFIGURATION = f"""
provider "aws" {{
  region = "{REGION}"
}}

module "iam" {{
  source = "./modules/iam"

  account_id               = "{ACCOUNT}"
  artifact_bucket          = "{BUCKET}"
  hosting_image_uri        = "{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/hosting:1"
  name                     = "{NAME}"
  partition                = "aws"
  permissions_boundary_arn = "{BOUNDARY}"
  region                   = "{REGION}"
  training_image_uri       = "{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/training:1"
}}

module "storage" {{
  source = "./modules/storage"

  account_id  = "{ACCOUNT}"
  environment = "prod"
  name        = "{NAME}"
  partition   = "aws"
  region      = "{REGION}"
  role_arns   = module.iam.role_arns
}}

module "firewall" {{
  source = "./modules/firewall"

  name   = "{NAME}"
  vpc_id = "vpc-0123456789abcdef0"
}}
"""


def listed(value: Any) -> list[Any]:
    """IAM writes a list of one as the one."""
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Planned values by address."""
    root = tmp_path_factory.mktemp("policies")
    (root / "modules").symlink_to(TERRAFORM / "modules")
    (root / "versions.tf").write_text((TERRAFORM / "versions.tf").read_text().split("# Nothing but region")[0])
    (root / "main.tf").write_text(CONFIGURATION)
    if (TERRAFORM / "terraform.d").is_dir():
        (root / "terraform.d").symlink_to((TERRAFORM / "terraform.d").resolve())

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = os.environ | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}

    def terraform(*arguments: str) -> str:
        result = subprocess.run(
            ["terraform", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    try:
        terraform("init", "-input=false", "-no-color")
        terraform("plan", "-input=false", "-no-color", "-out=plan")
        plan = json.loads(terraform("show", "-json", "plan"))
    finally:
        server.stop()
    yield {resource["address"]: resource["change"]["after"] for resource in plan["resource_changes"]}


@pytest.fixture(scope="module")
def policies(planned: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Statements of each role's one policy, by role."""
    found = {
        values["role"].removeprefix(f"{NAME}-"): json.loads(values["policy"])["Statement"]
        for address, values in planned.items()
        if ".aws_iam_role_policy." in address
    }
    assert sorted(found) == WORKLOADS
    return found


def allowed(statements: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Resources by allowed action."""
    resources: dict[str, list[str]] = {}
    for statement in statements:
        if statement["Effect"] == "Allow":
            for action in listed(statement["Action"]):
                resources.setdefault(action, []).extend(listed(statement["Resource"]))
    return resources


def test_no_policy_is_attached_but_the_roles_own(planned):
    kinds = {address.split(".")[2] for address in planned if address.startswith("module.iam.")}
    assert kinds == {"aws_iam_instance_profile", "aws_iam_role", "aws_iam_role_policy"}


def test_no_managed_policy_is_named():
    names = re.compile(r"\w*FullAccess|AdministratorAccess|PowerUserAccess")
    sources = list(TERRAFORM.rglob("*.tf"))
    assert len(sources) > 30
    assert [path.name for path in sources if ".terraform" not in path.parts and names.search(path.read_text())] == []


@pytest.mark.parametrize("workload", WORKLOADS)
def test_actions_are_spelt_out(policies, workload):
    for statement in policies[workload]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        for action in listed(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), f"{workload} may do {action}"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_resources_are_named_where_aws_knows_them(policies, workload):
    for action, resources in allowed(policies[workload]).items():
        if "*" in resources:
            assert action in WITHOUT_RESOURCE_LEVEL, f"{workload} may do {action} to anything"
        for resource in resources:
            assert resource == "*" or re.match(rf"arn:aws:\w+:({REGION})?:({ACCOUNT})?:", resource), resource


@pytest.mark.parametrize("workload", WORKLOADS)
def test_metrics_go_to_one_namespace(policies, workload):
    for statement in policies[workload]:
        if "cloudwatch:PutMetricData" in listed(statement["Action"]):
            namespace = statement["Condition"]["StringEquals"]["cloudwatch:namespace"]
            assert namespace in ("/aws/sagemaker/Endpoints", "/aws/sagemaker/TrainingJobs")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_key_is_given_out_in_its_own_policy_only(policies, workload):
    assert [action for action in allowed(policies[workload]) if action.startswith("kms:")] == []


def test_every_role_has_the_boundary(planned):
    roles = {values["name"]: values for address, values in planned.items() if ".aws_iam_role." in address}
    assert sorted(roles) == [f"{NAME}-{workload}" for workload in WORKLOADS]
    assert {values["permissions_boundary"] for values in roles.values()} == {BOUNDARY}


@pytest.mark.parametrize(
    ("workload", "service"),
    [
        ("builder", "codebuild"),
        ("flow-logs", "vpc-flow-logs"),
        ("hosting", "sagemaker"),
        ("lambda", "lambda"),
        ("notebook", "sagemaker"),
        ("trainer", "ec2"),
        ("training", "sagemaker"),
    ],
)
def test_trust(planned, workload, service):
    role = planned[f"module.iam.aws_iam_role.{workload.replace('-', '_')}"]
    [statement] = json.loads(role["assume_role_policy"])["Statement"]
    # EC2 does not send the key.
    condition = {} if service == "ec2" else {"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
        **condition,
    }


def test_the_lambda_invokes_one_endpoint_and_makes_no_log_group(policies):
    granted = allowed(policies["lambda"])
    assert granted["sagemaker:InvokeEndpoint"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{NAME}"]
    assert granted["sqs:SendMessage"] == [f"arn:aws:sqs:{REGION}:{ACCOUNT}:{NAME}-lambda-dead-letters"]
    assert granted["logs:PutLogEvents"] == [f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{NAME}:*"]
    assert "logs:CreateLogGroup" not in granted
    assert [action for action in granted if action.startswith(("s3:", "iam:", "sts:"))] == []


def test_the_lambdas_own_code_may_not_touch_the_network(policies):
    [denied] = [statement for statement in policies["lambda"] if statement["Effect"] == "Deny"]
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}"
    assert denied["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": function}}
    assert set(denied["Action"]) == {action for action in allowed(policies["lambda"]) if action.startswith("ec2:")}


def test_only_the_notebook_passes_a_role_and_only_the_training_role(policies):
    passing = [
        (workload, statement)
        for workload, statements in policies.items()
        for statement in statements
        if "iam:PassRole" in listed(statement["Action"])
    ]
    [(workload, statement)] = passing
    assert workload == "notebook"
    assert listed(statement["Resource"]) == [f"arn:aws:iam::{ACCOUNT}:role/{NAME}-training"]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_notebook_runs_this_stacks_jobs_and_stops_itself(policies):
    sagemaker = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    granted = allowed(policies["notebook"])
    assert granted["sagemaker:CreateTrainingJob"] == [f"{sagemaker}:training-job/{NAME}-*"]
    assert granted["sagemaker:CreateHyperParameterTuningJob"] == [f"{sagemaker}:hyper-parameter-tuning-job/{NAME}-*"]
    assert granted["sagemaker:StopNotebookInstance"] == [f"{sagemaker}:notebook-instance/{NAME}"]


def test_the_box_terminates_in_its_own_group_only(policies):
    granted = allowed(policies["trainer"])
    assert granted["autoscaling:TerminateInstanceInAutoScalingGroup"] == [
        f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/{NAME}-trainer"
    ]
    assert [action for action in granted if action.startswith(("ec2:", "iam:", "sagemaker:"))] == []


@pytest.mark.parametrize(
    ("workload", "action", "prefixes"),
    [
        ("hosting", "s3:GetObject", ["releases", "training/*/output"]),
        ("notebook", "s3:GetObject", ["code", "datasets", "features", "releases", "training"]),
        ("notebook", "s3:PutObject", ["datasets", "features", "releases"]),
        ("trainer", "s3:GetObject", ["code", "datasets", "releases", "trainer/checkpoints"]),
        ("trainer", "s3:PutObject", ["releases", "trainer/checkpoints", "trainer/logs"]),
        ("training", "s3:GetObject", ["code", "datasets", "features", "training/*/checkpoints"]),
        ("training", "s3:PutObject", ["training"]),
    ],
)
def test_objects_by_prefix(policies, workload, action, prefixes):
    assert sorted(allowed(policies[workload])[action]) == [f"arn:aws:s3:::{BUCKET}/{prefix}/*" for prefix in prefixes]


@pytest.mark.parametrize("workload", ["builder", "flow-logs", "hosting", "lambda"])
def test_who_writes_no_object(policies, workload):
    assert [action for action in allowed(policies[workload]) if action.startswith(("s3:Put", "s3:Delete"))] == []


def test_nobody_deletes_or_lists_without_a_prefix(policies):
    for statements in policies.values():
        for statement in statements:
            actions = listed(statement["Action"])
            assert not [action for action in actions if action.startswith("s3:Delete")]
            if "s3:ListBucket" in actions:
                assert statement["Condition"]["StringLike"]["s3:prefix"]


def test_hosting_watches_this_stacks_alarms(policies):
    alarms = allowed(policies["hosting"])["cloudwatch:DescribeAlarms"]
    assert alarms == [f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{NAME}-*"]


@pytest.mark.parametrize("workload", ["hosting", "training"])
def test_an_image_comes_from_one_repository(policies, workload):
    repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{workload}"
    assert allowed(policies[workload])["ecr:BatchGetImage"] == [repository]


def test_the_builder_pushes_to_one_repository_what_it_built_of_one_object(policies):
    """Its whole matrix: each action and resource; whatever is not here, it may not."""
    source, repository = f"arn:aws:s3:::{BUCKET}/image/source.zip", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository"
    log = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/{NAME}/builder:*"
    pushing = ["BatchCheckLayerAvailability", "BatchGetImage", "CompleteLayerUpload"]
    pushing += ["InitiateLayerUpload", "PutImage", "UploadLayerPart"]
    assert allowed(policies["builder"]) == {
        "s3:GetObject": [source],
        "s3:GetObjectVersion": [source],
        "s3:GetBucketLocation": [f"arn:aws:s3:::{BUCKET}"],
        **{f"ecr:{action}": [f"{repository}/{NAME}-hosting"] for action in pushing},
        "ecr:GetAuthorizationToken": ["*"],
        "logs:CreateLogStream": [log],
        "logs:PutLogEvents": [log],
    }


def test_nobody_else_pushes_and_nobody_takes_an_image_away(policies):
    changing = re.compile("ecr:(Put|Initiate|Upload|Complete|Delete|BatchDelete|Set|Create|Replicate|Tag|Untag)")
    assert {workload for workload in WORKLOADS if any(map(changing.match, allowed(policies[workload])))} == {"builder"}
    assert not [action for action in allowed(policies["builder"]) if re.match("ecr:(Delete|BatchDelete|Set)", action)]
    assert not [action for statements in policies.values() for action in allowed(statements) if "codebuild:" in action]


def test_the_key_policy_is_known_at_plan_and_admits_whom_it_must(planned):
    statements = {
        statement["Sid"]: statement
        for statement in json.loads(planned["module.storage.aws_kms_key.this"]["policy"])["Statement"]
    }
    principals = {sid: statement["Principal"] for sid, statement in statements.items()}
    scaling = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    role = f"arn:aws:iam::{ACCOUNT}:role/{NAME}-"
    assert principals == {
        "AccountAdministration": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "LogGroups": {"Service": f"logs.{REGION}.amazonaws.com"},
        "AlarmsToEncryptedTopic": {"Service": "cloudwatch.amazonaws.com"},
        "AutoScalingVolumes": {"AWS": scaling},
        "AutoScalingGrants": {"AWS": scaling},
        "SageMakerGrants": {"AWS": [f"{role}hosting", f"{role}notebook", f"{role}training"]},
        "UseBuilder": {"AWS": f"{role}builder"},
        "UseHosting": {"AWS": f"{role}hosting"},
        "UseLambda": {"AWS": f"{role}lambda"},
        "UseNotebook": {"AWS": f"{role}notebook"},
        "UseTrainer": {"AWS": f"{role}trainer"},
        "UseTraining": {"AWS": f"{role}training"},
    }
    # A service principal without a condition would act for any account.
    for statement in statements.values():
        if "Service" in statement["Principal"]:
            assert ACCOUNT in json.dumps(statement["Condition"])


def test_no_workload_listens_but_the_hosts_of_one_training_to_each_other(planned):
    firewall = [values for address, values in planned.items() if address.startswith("module.firewall.")]
    groups = [address for address in planned if ".aws_security_group." in address]
    assert len(groups) == 5
    [rule] = [values for address, values in planned.items() if "_ingress_rule." in address]
    assert rule["cidr_ipv4"] is None and rule["cidr_ipv6"] is None and rule["prefix_list_id"] is None
    assert all(not values.get("ingress") for values in firewall)
