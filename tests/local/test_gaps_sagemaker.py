"""The account's SageMaker control plane, Application Auto Scaling of its variants included."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.account import Account

DEEP_LEARNING_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
DIMENSION = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}


class SageMaker:
    """Short ways to the resources that these tests need."""

    def __init__(self, account: Account, role_arn: str) -> None:
        self.account, self.role_arn = account, role_arn
        self.client = account.client("sagemaker")

    def model(self, name: str, image: str = DEEP_LEARNING_IMAGE, **settings: Any) -> str:
        s3 = self.account.client("s3")
        s3.create_bucket(Bucket="models")
        s3.put_object(Bucket="models", Key="model.tar.gz", Body=b"an archive")
        container = {"Image": image, "ModelDataUrl": "s3://models/model.tar.gz"}
        arguments = {"ModelName": name, "ExecutionRoleArn": self.role_arn, "PrimaryContainer": container} | settings
        self.client.create_model(**arguments)
        return name

    def config(self, name: str, model: str, instance_type: str = "ml.m5.xlarge", instances: int = 1) -> str:
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": model,
            "InstanceType": instance_type,
            "InitialInstanceCount": instances,
        }
        self.client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        return name

    def endpoint(self, name: str) -> str:
        config = self.config(f"{name}-1", self.model(f"{name}-1"))
        self.client.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return name


@pytest.fixture
def sagemaker(control_plane: Account, role_arns: dict[str, str]) -> SageMaker:
    return SageMaker(control_plane, role_arns["sagemaker"])


def test_model_isolation_is_read_back(sagemaker: SageMaker) -> None:
    sagemaker.model("isolated", EnableNetworkIsolation=True)
    sagemaker.model("open")
    assert sagemaker.client.describe_model(ModelName="isolated")["EnableNetworkIsolation"] is True
    assert sagemaker.client.describe_model(ModelName="open")["EnableNetworkIsolation"] is False


@pytest.mark.fault
def test_a_model_needs_its_archive_and_its_role(sagemaker: SageMaker, role_arns: dict[str, str]) -> None:
    missing = {"Image": DEEP_LEARNING_IMAGE, "ModelDataUrl": "s3://models/absent.tar.gz"}
    with pytest.raises(ClientError, match="Could not find model data at s3://models/absent"):
        sagemaker.model("without", PrimaryContainer=missing)
    for role in ("arn:aws:iam::123456789012:role/absent", role_arns["lambda"]):
        with pytest.raises(ClientError, match="Could not assume role"):
            sagemaker.model("without", ExecutionRoleArn=role)
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.client.describe_model(ModelName="without")


def test_an_image_of_this_account_must_be_in_its_registry(sagemaker: SageMaker) -> None:
    ecr = sagemaker.account.client("ecr")
    repository = ecr.create_repository(repositoryName="hosting")["repository"]["repositoryUri"]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    manifest["config"] = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 0, "digest": "x"}
    image = ecr.put_image(repositoryName="hosting", imageManifest=json.dumps(manifest), imageTag="v1")["image"]
    digest = image["imageId"]["imageDigest"]
    sagemaker.model("by-tag", f"{repository}:v1")
    sagemaker.model("by-digest", f"{repository}@{digest}")
    absent = repository.replace("hosting", "absent")
    for missing in (f"{repository}:v2", repository, f"{repository}@sha256:{'0' * 64}", f"{absent}:v1"):
        with pytest.raises(ClientError, match=f"Requested image {missing} not found"):
            sagemaker.model("missing", missing)
    with pytest.raises(ClientError, match="non-ECR image"):
        sagemaker.model("missing", "docker.io/library/python:3.13")


def test_notebook_platform_and_lifecycle(sagemaker: SageMaker) -> None:
    client = sagemaker.client
    created = client.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="idle",
        OnStart=[{"Content": "#" * 16384}],
        Tags=[{"Key": "Project", "Value": "x"}],
    )
    arn = created["NotebookInstanceLifecycleConfigArn"]
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "Project", "Value": "x"}]
    notebook = {
        "NotebookInstanceName": "notebook",
        "InstanceType": "ml.t3.medium",
        "RoleArn": sagemaker.role_arn,
        "PlatformIdentifier": "notebook-al2-v3",
        "InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": "2"},
    }
    with pytest.raises(ClientError, match="Unable to find Notebook Instance Lifecycle Config"):
        client.create_notebook_instance(**notebook, LifecycleConfigName="absent")
    client.create_notebook_instance(**notebook, LifecycleConfigName="idle")
    described = client.describe_notebook_instance(NotebookInstanceName="notebook")
    assert {key: described[key] for key in notebook} == notebook


@pytest.mark.parametrize("event", ["OnCreate", "OnStart"])
def test_a_lifecycle_script_is_limited(sagemaker: SageMaker, event: str) -> None:
    with pytest.raises(ClientError, match="16384"):
        sagemaker.client.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName="long", **{event: [{"Content": "#" * 16385}]}
        )


def test_an_endpoint_is_updated_in_place(sagemaker: SageMaker) -> None:
    client = sagemaker.client
    deployment = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "latency"}]}}
    first = sagemaker.config("in-place-1", sagemaker.model("in-place-1"))
    client.create_endpoint(EndpointName="in-place", EndpointConfigName=first, DeploymentConfig=deployment)
    before = client.describe_endpoint(EndpointName="in-place")
    assert (before["EndpointStatus"], before["LastDeploymentConfig"]) == ("InService", deployment)
    second = sagemaker.config("in-place-2", sagemaker.model("in-place-2"), instances=2)
    client.update_endpoint(EndpointName="in-place", EndpointConfigName=second)
    after = client.describe_endpoint(EndpointName="in-place")
    assert (after["EndpointConfigName"], after["EndpointArn"]) == (second, before["EndpointArn"])
    assert after["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert "DataCaptureConfig" not in client.describe_endpoint_config(EndpointConfigName=second)


def test_an_update_needs_an_endpoint_and_a_configuration(sagemaker: SageMaker) -> None:
    name = sagemaker.endpoint("needs")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.client.update_endpoint(EndpointName=name, EndpointConfigName="absent")
    with pytest.raises(ClientError, match="Could not find endpoint "):
        sagemaker.client.update_endpoint(EndpointName="absent", EndpointConfigName="needs-1")
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.config("orphan", "absent")
    with pytest.raises(ClientError, match="already existing endpoint"):
        sagemaker.client.create_endpoint(EndpointName=name, EndpointConfigName="needs-1")


@pytest.mark.parametrize(
    ("instances", "size", "accepted"),
    [
        (1, {"Type": "INSTANCE_COUNT", "Value": 1}, False),
        (1, {"Type": "CAPACITY_PERCENT", "Value": 10}, False),
        (2, {"Type": "INSTANCE_COUNT", "Value": 1}, True),
        (2, {"Type": "CAPACITY_PERCENT", "Value": 50}, True),
        (3, {"Type": "INSTANCE_COUNT", "Value": 2}, False),
        (10, {"Type": "CAPACITY_PERCENT", "Value": 51}, False),
    ],
)
def test_a_canary_is_at_most_half_of_the_instances(
    sagemaker: SageMaker, instances: int, size: dict[str, Any], accepted: bool
) -> None:
    name = f"canary-{instances}-{size['Type'].split('_')[0].lower()}-{size['Value']}"
    config = sagemaker.config(name, sagemaker.model(name), instances=instances)
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size}
    arguments = {
        "EndpointName": name,
        "EndpointConfigName": config,
        "DeploymentConfig": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
    }
    if accepted:
        sagemaker.client.create_endpoint(**arguments)
        return
    with pytest.raises(ClientError, match="at most 50 percent"):
        sagemaker.client.create_endpoint(**arguments)


def test_invoke_without_a_data_plane_says_so(sagemaker: SageMaker) -> None:
    name = sagemaker.endpoint("silent")
    runtime = sagemaker.account.client("sagemaker-runtime")
    with pytest.raises(ClientError, match=r"EmulatorUnsupported.*--no-data-plane"):
        runtime.invoke_endpoint(EndpointName=name, Body=b"")
    with pytest.raises(ClientError, match=r"ValidationError.*Endpoint absent of account 123456789012 not found"):
        runtime.invoke_endpoint(EndpointName="absent", Body=b"")


def test_a_scalable_target_keeps_its_tags(sagemaker: SageMaker) -> None:
    autoscaling = sagemaker.account.client("application-autoscaling")
    resource = f"endpoint/{sagemaker.endpoint('tagged')}/variant/AllTraffic"
    arn = autoscaling.register_scalable_target(
        **DIMENSION, ResourceId=resource, MinCapacity=1, MaxCapacity=3, Tags={"Project": "x"}
    )["ScalableTargetARN"]
    autoscaling.tag_resource(ResourceARN=arn, Tags={"Stage": "test"})
    autoscaling.untag_resource(ResourceARN=arn, TagKeys=["Project"])
    assert autoscaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"Stage": "test"}
    with pytest.raises(autoscaling.exceptions.ResourceNotFoundException):
        autoscaling.list_tags_for_resource(ResourceARN=f"{arn}0")


@pytest.mark.parametrize(
    ("resource", "low", "high", "message"),
    [
        ("endpoint/bounds/variant/AllTraffic", 3, 1, "must not be greater"),
        ("endpoint/bounds/variant/Other", 1, 3, "does not exist"),
        ("endpoint/absent/variant/AllTraffic", 1, 3, "does not exist"),
    ],
)
def test_scalable_targets_aws_refuses(sagemaker: SageMaker, resource: str, low: int, high: int, message: str) -> None:
    existing = sagemaker.client.list_endpoints(NameContains="bounds")["Endpoints"]
    if not existing:
        sagemaker.endpoint("bounds")
    autoscaling = sagemaker.account.client("application-autoscaling")
    with pytest.raises(ClientError, match=message):
        autoscaling.register_scalable_target(**DIMENSION, ResourceId=resource, MinCapacity=low, MaxCapacity=high)


def test_a_scaling_policy_has_alarms_that_change_and_go_with_it(sagemaker: SageMaker) -> None:
    autoscaling = sagemaker.account.client("application-autoscaling")
    cloudwatch = sagemaker.account.client("cloudwatch")
    resource = f"endpoint/{sagemaker.endpoint('scaled')}/variant/AllTraffic"
    policy = {**DIMENSION, "PolicyName": "invocations", "ResourceId": resource}

    def put(target: float) -> str:
        metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        return autoscaling.put_scaling_policy(
            **policy,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": target,
                "PredefinedMetricSpecification": metric,
            },
        )["PolicyARN"]

    def alarms() -> dict[str, float]:
        [described] = autoscaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)[
            "ScalingPolicies"
        ]
        names = [alarm["AlarmName"] for alarm in described["Alarms"]]
        found = cloudwatch.describe_alarms(AlarmNamePrefix=f"TargetTracking-{resource}")["MetricAlarms"]
        assert sorted(alarm["AlarmName"] for alarm in found) == sorted(names)
        return {alarm["ComparisonOperator"]: alarm["Threshold"] for alarm in found}

    with pytest.raises(autoscaling.exceptions.ObjectNotFoundException):
        put(30)
    autoscaling.register_scalable_target(**DIMENSION, ResourceId=resource, MinCapacity=1, MaxCapacity=3)
    arn = put(30)
    assert alarms() == {"GreaterThanThreshold": 30.0, "LessThanThreshold": 27.0}
    assert put(60) == arn
    assert alarms() == {"GreaterThanThreshold": 60.0, "LessThanThreshold": 54.0}
    autoscaling.delete_scaling_policy(**policy)
    assert not cloudwatch.describe_alarms(AlarmNamePrefix=f"TargetTracking-{resource}")["MetricAlarms"]


def test_an_autoscaled_variant_keeps_its_instance_type(sagemaker: SageMaker) -> None:
    name = sagemaker.endpoint("fixed")
    target = {**DIMENSION, "ResourceId": f"endpoint/{name}/variant/AllTraffic"}
    autoscaling = sagemaker.account.client("application-autoscaling")
    autoscaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    larger = sagemaker.config("fixed-2", "fixed-1", instance_type="ml.m5.2xlarge")
    with pytest.raises(ClientError, match="deregister the scalable target first"):
        sagemaker.client.update_endpoint(EndpointName=name, EndpointConfigName=larger)
    autoscaling.deregister_scalable_target(**target)
    sagemaker.client.update_endpoint(EndpointName=name, EndpointConfigName=larger)
    assert sagemaker.client.describe_endpoint(EndpointName=name)["EndpointConfigName"] == larger
