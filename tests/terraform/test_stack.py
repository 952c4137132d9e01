"""The whole stack with the real provider: refused, applied, planned, updated in place, destroyed. In this order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from security.calls import recorded_actions
from security.deployer import grants, read_recorded, read_table
from security.plan import RELEASE
from security.recording import ACCESS_KEYS

NIGHT = {"schedule": "cron(0 20 * * ? *)", "timezone": "Europe/Berlin", "min_capacity": 1, "max_capacity": 1}
REFERENCE = Path(__file__).resolve().parents[2] / "terraform" / "environments" / "reference.tfvars"


@pytest.fixture(scope="module")
def release(stack) -> Iterator[str]:
    """Applies the stack, has the image built, applies with image and release, as a user does; the release's key."""
    stack.apply()
    assert stack.output("endpoint_name") is None
    stack.build_image()
    key = stack.upload_release("first")
    stack.apply(release_key=key)
    yield key


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("lambda_provisioned_concurrency", 6, "reserved"),
        ("autoscaling_max_capacity", 0, "raise the maximum or lower the minimum"),
        ("autoscaling_scheduled_actions", {"night": {**NIGHT, "schedule": "rate(1 day)"}}, "write at(2026-12-24T18"),
        ("endpoint_instance_type", "ml.t2.medium", "burstable"),
        ("log_retention_days", 31, "CloudWatch Logs knows"),
        ("private_hosts", [{"host": "pictures.internal", "port": 443, "cidr": "127.0.0.0/8"}], "loopback"),
        ("private_hosts", [{"host": "pictures.internal", "port": 443, "cidr": "169.254.169.254/32"}], "link-local"),
        ("release_key", "model.tar.gz", "model/publish.py"),
    ],
)
def test_a_wrong_value_is_refused_at_plan(stack, variable, value, remedy):
    assert remedy in stack.refused_plan(**{"release_key": RELEASE, variable: value})


def test_plan_after_apply_is_empty(stack, release):
    assert stack.plan_status(release_key=release) == 0


def test_the_reference_figures_arrive(stack, release):
    assert stack.resource("aws_sagemaker_notebook_instance", "module.notebook")["instance_type"] == "ml.t3.medium"
    assert stack.output("submission")["instance_type"] == "ml.m5.xlarge"
    assert stack.resource("aws_launch_template", "module.trainer")["instance_type"] == "m5.2xlarge"
    configuration = stack.account.client("sagemaker").describe_endpoint_config(
        EndpointConfigName=stack.resource("aws_sagemaker_endpoint_configuration", "module.endpoint")["name"]
    )
    assert [variant["InstanceType"] for variant in configuration["ProductionVariants"]] == ["ml.m5.xlarge"]

    scaling = stack.account.client("application-autoscaling")
    [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 3)
    [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["PredefinedMetricSpecification"]["PredefinedMetricType"] == "SageMakerVariantInvocationsPerInstance"
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"], tracking["ScaleOutCooldown"]) == (30, 30, 30)

    functions = stack.account.client("lambda")
    name, alias = stack.output("function_name"), stack.output("function_alias")
    assert functions.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 5
    provisioned = functions.get_provisioned_concurrency_config(FunctionName=name, Qualifier=alias)
    assert provisioned["RequestedProvisionedConcurrentExecutions"] == 3


def test_the_endpoint_runs_the_stacks_own_image_by_its_digest(stack, release):
    assert stack.image_uri.startswith(f"{stack.output('image_repository_url')}@sha256:")
    model = stack.resource("aws_sagemaker_model", "module.endpoint")
    assert model["primary_container"][0]["image"] == stack.image_uri
    role = model["execution_role_arn"].rpartition("/")[2]
    policy = stack.account.client("iam").get_role_policy(RoleName=role, PolicyName="hosting")
    pulling = [
        statement["Resource"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "ecr:BatchGetImage" in statement["Action"]
    ]
    assert [arn.rpartition("/")[2] for arn in pulling] == [stack.image_uri.partition("/")[2].partition("@")[0]]


def test_each_reference_figure_stands_once():
    names = re.findall(r"^(\w+)\s*=", REFERENCE.read_text(), re.MULTILINE)
    assert len(names) == len(set(names)) == 11
    variables = (REFERENCE.parents[1] / "variables.tf").read_text()
    for name in names:
        [block] = re.findall(rf'variable "{name}" {{.*?^}}', variables, re.MULTILINE | re.DOTALL)
        assert not re.search(r"^\s*default\s*=", block, re.MULTILINE), f"{name} has a second place: its default"


def test_a_box_in_training_does_not_show_in_the_plan(stack, release):
    autoscaling = stack.account.client("autoscaling")
    group = stack.output("autoscaling_group_name")
    autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1)
    try:
        assert stack.plan_status(release_key=release) == 0
    finally:
        autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=0)


def test_what_a_scheduled_action_did_is_not_taken_back(stack, release):
    scaling = stack.account.client("application-autoscaling")

    def bounds() -> tuple[int, int]:
        [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return target["MinCapacity"], target["MaxCapacity"]

    settings = {"release_key": release, "autoscaling_scheduled_actions": {"night": NIGHT}}
    stack.apply(**settings)
    [action] = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert (action["ScheduledActionName"], action["Schedule"]) == ("night", NIGHT["schedule"])
    assert action["Timezone"] == "Europe/Berlin"
    assert action["ScalableTargetAction"] == {"MinCapacity": 1, "MaxCapacity": 1}
    assert bounds() == (1, 3) and stack.plan_status(**settings) == 0
    # Nothing runs in this account: what the night does.
    scaling.register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId=action["ResourceId"],
        ScalableDimension=action["ScalableDimension"],
        **action["ScalableTargetAction"],
    )
    assert stack.plan_status(**settings) == 0
    stack.apply(**settings, log_retention_days=30)
    assert bounds() == (1, 1)
    # Other bounds are another matter.
    stack.apply(**settings, autoscaling_max_capacity=4)
    assert bounds() == (1, 4) and stack.plan_status(**settings, autoscaling_max_capacity=4) == 0
    assert len(scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]) == 1
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1
    stack.apply(release_key=release)
    assert scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"] == []
    assert bounds() == (1, 3)


def test_a_new_release_updates_the_endpoint_in_place(stack, release):
    sagemaker = stack.account.client("sagemaker")
    before = sagemaker.describe_endpoint(EndpointName=stack.output("endpoint_name"))
    second = stack.upload_release("second")
    stack.apply(release_key=second)
    after = sagemaker.describe_endpoint(EndpointName=stack.output("endpoint_name"))
    assert after["CreationTime"] == before["CreationTime"]
    assert after["EndpointConfigName"] != before["EndpointConfigName"]
    assert stack.plan_status(release_key=second) == 0
    # The configuration it replaced is gone, the scaling is not.
    assert [item["EndpointConfigName"] for item in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == [
        after["EndpointConfigName"]
    ]
    scaling = stack.account.client("application-autoscaling")
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1
    stack.apply(release_key=release)


@pytest.mark.fault
def test_scaling_survives_an_instance_type_change(stack, release):
    stack.apply(release_key=release, endpoint_instance_type="ml.c5.xlarge")
    configuration = stack.resource("aws_sagemaker_endpoint_configuration", "module.endpoint")
    assert configuration["production_variants"][0]["instance_type"] == "ml.c5.xlarge"
    [policy] = stack.account.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")[
        "ScalingPolicies"
    ]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 30
    assert stack.plan_status(release_key=release, endpoint_instance_type="ml.c5.xlarge") == 0


def test_destroy_leaves_nothing(stack, release):
    stack.destroy(release_key=release)
    assert stack.state()["resources"] == []
    client = stack.account.client
    assert client("s3").list_buckets()["Buckets"] == []
    assert client("sagemaker").list_endpoints()["Endpoints"] == []
    assert client("lambda").list_functions()["Functions"] == []
    assert client("ecr").describe_repositories()["repositories"] == []
    assert client("codebuild").list_projects()["projects"] == []
    assert json.dumps(client("logs").describe_log_groups()["logGroups"]) == "[]"


def test_what_terraform_called_is_what_a_deployer_is_granted(stack, release):
    """After the whole life above; that nothing more is granted, tests/security/test_deployer.py shows."""
    calls = Path(stack.terraform.state).parent / "account" / "calls.jsonl"
    called = recorded_actions(calls, ACCESS_KEYS.values())
    assert sorted(called) == sorted(ACCESS_KEYS.values())
    table = read_table({"account": "123456789012", "boundary": "arn", "name": "test-classifier", "region": "us-east-1"})
    for phase, actions in read_recorded().items():
        granted = {grant.action for grant in grants(phase, actions, table)}
        assert called[ACCESS_KEYS[phase]] - granted - table["underived"].keys() == set(), phase
