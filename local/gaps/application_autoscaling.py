"""Application Auto Scaling gaps of moto 5.2.5. Nothing scales: these calls are recorded, not acted on."""

import json
import uuid
from typing import Any

from moto.applicationautoscaling.exceptions import AWSValidationException
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, FakeApplicationAutoscalingPolicy
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.exceptions import JsonRESTError
from moto.sagemaker.models import sagemaker_backends

from local.gaps.patch import adds, around


def fill() -> None:
    _scalable_target_refusals()
    _scalable_target_tags()
    _sagemaker_alarms()


def _scalable_target_refusals() -> None:
    """RegisterScalableTarget: moto takes a minimum above the maximum, and a SageMaker variant that does not exist."""

    @around(ApplicationAutoscalingBackend)
    def register_scalable_target(
        original: Any, backend: ApplicationAutoscalingBackend, namespace: str, r_id: str, dimension: str, **options: Any
    ) -> Any:
        known = backend.targets.get(dimension, {}).get(r_id)
        low, high = (
            options[bound] if options[bound] is not None else getattr(known, bound, None)
            for bound in ("min_capacity", "max_capacity")
        )
        if low is None or high is None:
            raise AWSValidationException("MinCapacity and MaxCapacity are required to register a new scalable target")
        if low > high:
            raise AWSValidationException(f"Minimum capacity {low} must not be greater than maximum capacity {high}")
        if namespace == "sagemaker" and dimension == "sagemaker:variant:DesiredInstanceCount":
            endpoints = sagemaker_backends[backend.account_id][backend.region_name].endpoints
            _, endpoint, _, variant = r_id.split("/")
            variants = endpoints[endpoint].production_variants if endpoint in endpoints else []
            if variant not in [known_variant["VariantName"] for known_variant in variants]:
                raise AWSValidationException(f"SageMaker endpoint variant does not exist: {r_id}")
        return original(backend, namespace, r_id, dimension, **options)


def _scalable_target_tags() -> None:
    """ListTagsForResource, TagResource and UntagResource are missing, and RegisterScalableTarget drops its Tags."""

    def target(response: ApplicationAutoScalingResponse, arn: str) -> Any:
        for targets in response.applicationautoscaling_backend.targets.values():
            for candidate in targets.values():
                if candidate.arn == arn:
                    candidate.tags = getattr(candidate, "tags", {})
                    return candidate
        raise JsonRESTError("ResourceNotFoundException", f"No scalable target found for ARN: {arn}")

    @around(ApplicationAutoScalingResponse)
    def register_scalable_target(original: Any, response: ApplicationAutoScalingResponse) -> str:
        answer = original(response)
        target(response, json.loads(answer)["ScalableTargetARN"]).tags.update(response._get_param("Tags") or {})
        return answer

    @adds(ApplicationAutoScalingResponse)
    def list_tags_for_resource(response: ApplicationAutoScalingResponse) -> str:
        return json.dumps({"Tags": target(response, response._get_param("ResourceARN")).tags})

    @adds(ApplicationAutoScalingResponse)
    def tag_resource(response: ApplicationAutoScalingResponse) -> str:
        target(response, response._get_param("ResourceARN")).tags.update(response._get_param("Tags"))
        return "{}"

    @adds(ApplicationAutoScalingResponse)
    def untag_resource(response: ApplicationAutoScalingResponse) -> str:
        tags = target(response, response._get_param("ResourceARN")).tags
        for key in response._get_param("TagKeys"):
            tags.pop(key, None)
        return "{}"


def _sagemaker_alarms() -> None:
    """PutScalingPolicy: a SageMaker target-tracking policy makes no alarms, so alarm_arns is empty; and a change of the
    policy gives it a new ARN, where AWS keeps the ARN."""

    @around(FakeApplicationAutoscalingPolicy)
    def create_alarms(original: Any, policy: FakeApplicationAutoscalingPolicy) -> None:
        original(policy)
        if policy.service_namespace != "sagemaker" or policy.policy_type != "TargetTrackingScaling":
            return
        _, endpoint, _, variant = policy.resource_id.split("/")
        config = policy.target_tracking_scaling_policy_configuration
        metric = config.get("PredefinedMetricSpecification", {}).get(
            "PredefinedMetricType", "SageMakerVariantInvocationsPerInstance"
        )
        # AWS scales out after 3 minutes above the target and in after 15 minutes below 90 % of it.
        for name, comparison, minutes, share in (
            ("AlarmHigh", "GreaterThanThreshold", 3, 1.0),
            ("AlarmLow", "LessThanThreshold", 15, 0.9),
        ):
            alarm = cloudwatch_backends[policy.account_id][policy.region_name].put_metric_alarm(
                name=f"TargetTracking-{policy.resource_id}-{name}-{uuid.uuid4()}",
                namespace="AWS/SageMaker",
                metric_name=metric.removeprefix("SageMakerVariant"),
                metric_data_queries=[],
                comparison_operator=comparison,
                evaluation_periods=minutes,
                period=60,
                threshold=float(config["TargetValue"]) * share,
                statistic="Sum",
                description=f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy.policy_arn}.",
                dimensions=[
                    {"Name": "EndpointName", "Value": endpoint},
                    {"Name": "VariantName", "Value": variant},
                ],
                alarm_actions=[policy.policy_arn],
            )
            policy.alarms.append(alarm)

    @around(ApplicationAutoscalingBackend)
    def put_scaling_policy(original: Any, backend: ApplicationAutoscalingBackend, **policy: Any) -> Any:
        if not backend._scalable_target_exists(policy["resource_id"], policy["scalable_dimension"]):
            raise JsonRESTError(
                "ObjectNotFoundException",
                f"No scalable target registered for service namespace: {policy['service_namespace']}, resource ID: "
                f"{policy['resource_id']}, scalable dimension: {policy['scalable_dimension']}",
            )
        key = FakeApplicationAutoscalingPolicy.formulate_key(
            policy["service_namespace"], policy["resource_id"], policy["scalable_dimension"], policy["policy_name"]
        )
        before = backend.policies.get(key)
        after = original(backend, **policy)
        if before:
            before.delete_alarms(backend.account_id, backend.region_name)
            after.policy_arn = before.policy_arn
        return after
