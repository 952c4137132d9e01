"""SageMaker endpoint gaps of moto 5.2.5: deployment, update in place, and InvokeEndpoint by a real host."""

import json
import math
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from local.endpoints import Endpoints, NoDataPlane
from local.gaps.patch import adds, around
from local.gaps.sagemaker_model import archive_url, read_archive
from local.hosting import HostingError

BODY_LIMIT_BYTES = 6_291_456


def fill(endpoints: Endpoints) -> None:
    """`endpoints` are the hosts that the filled calls start, reach and stop."""
    _endpoint_config_data_capture()
    _create_endpoint(endpoints)
    _update_endpoint(endpoints)
    _delete_endpoint(endpoints)
    _invoke_endpoint(endpoints)


def _endpoint_config_data_capture() -> None:
    """DescribeEndpointConfig: an empty DataCaptureConfig is answered where none was given."""

    @around(SageMakerResponse)
    def describe_endpoint_config(original: Any, response: SageMakerResponse) -> ActionResult:
        config = original(response).result
        return ActionResult({key: value for key, value in config.items() if key != "DataCaptureConfig" or value})


def _create_endpoint(endpoints: Endpoints) -> None:
    """CreateEndpoint: DeploymentConfig is not read back, the endpoint is InService at once and nothing serves it."""

    @around(SageMakerResponse)
    def create_endpoint(original: Any, response: SageMakerResponse) -> ActionResult:
        backend, name = response.sagemaker_backend, response._get_param("EndpointName")
        if name in backend.endpoints:
            raise ValidationError(f'Cannot create already existing endpoint "{backend.endpoints[name].arn}".')
        config = backend.describe_endpoint_config(response._get_param("EndpointConfigName"))
        deployment = response._get_param("DeploymentConfig")
        _check_deployment(deployment, config)
        archive, environment = _model_of(backend, config)
        result = original(response)
        endpoint = backend.endpoints[name]
        endpoint.last_deployment_config = deployment
        endpoint.endpoint_status = "Creating"

        def done(failure: str | None) -> None:
            endpoint.failure_reason = failure
            endpoint.endpoint_status = "Failed" if failure else "InService"
            endpoint.last_modified_time = utcnow()

        endpoints.deploy(endpoint.arn, archive, environment, done)
        return result


def _update_endpoint(endpoints: Endpoints) -> None:
    """UpdateEndpoint is missing. The new host is started beside the old one; where it does not answer, the endpoint
    rolls back: InService with its old configuration and a FailureReason, as AWS leaves it."""

    @adds(SageMakerResponse)
    def update_endpoint(response: SageMakerResponse) -> ActionResult:
        backend = response.sagemaker_backend
        endpoint = _endpoint(backend, response._get_param("EndpointName"))
        config_name = response._get_param("EndpointConfigName")
        config = backend.describe_endpoint_config(config_name)
        deployment = response._get_param("DeploymentConfig")
        if endpoint.endpoint_status != "InService":
            raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        _check_deployment(deployment, config)
        _check_autoscaled_variants(backend, endpoint, config)
        archive, environment = _model_of(backend, config)
        endpoint.endpoint_status = "Updating"

        def done(failure: str | None) -> None:
            endpoint.failure_reason = failure
            if not failure:
                endpoint.endpoint_config_name = config_name
                endpoint.last_deployment_config = deployment
                endpoint.data_capture_config = config.get("DataCaptureConfig")
                endpoint.production_variants = endpoint._process_production_variants(config["ProductionVariants"])
            endpoint.endpoint_status = "InService"
            endpoint.last_modified_time = utcnow()

        endpoints.deploy(endpoint.arn, archive, environment, done)
        return ActionResult({"EndpointArn": endpoint.arn})


def _delete_endpoint(endpoints: Endpoints) -> None:
    """DeleteEndpoint: AWS refuses it during a deployment, and the endpoint's host has to stop."""

    @around(SageMakerModelBackend)
    def delete_endpoint(original: Any, backend: SageMakerModelBackend, endpoint_name: str) -> None:
        endpoint = _endpoint(backend, endpoint_name)
        if endpoint.endpoint_status in ("Creating", "Updating"):
            raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        original(backend, endpoint_name)
        endpoints.remove(endpoint.arn)


def _endpoint(backend: SageMakerModelBackend, name: str) -> FakeEndpoint:
    backend.describe_endpoint(name)  # raises AWS's error where there is none
    return backend.endpoints[name]


def _model_of(backend: SageMakerModelBackend, config: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The archive and the container environment behind an endpoint configuration."""
    variants = config["ProductionVariants"]
    if len(variants) != 1:
        raise NotImplementedError(f"an endpoint of {len(variants)} production variants (one is hosted)")
    container = backend.describe_model(variants[0]["ModelName"]).primary_container
    url = archive_url(container or {})
    archive = read_archive(backend, url) if url else None
    if archive is None:
        raise ValidationError(f"Could not find model data at {url}.")
    return archive, container.get("Environment") or {}


def _check_deployment(deployment: dict[str, Any] | None, config: dict[str, Any]) -> None:
    """CreateEndpoint, UpdateEndpoint: AWS refuses a canary or a linear step of more than half of the instances."""
    routing = ((deployment or {}).get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration") or {}
    instances = sum(variant.get("InitialInstanceCount", 1) for variant in config["ProductionVariants"])
    for field in ("CanarySize", "LinearStepSize"):
        if size := routing.get(field):
            share = size["Value"]
            count = share if size["Type"] == "INSTANCE_COUNT" else math.ceil(share * instances / 100)
            if 2 * count > instances:
                raise ValidationError(
                    f"{field} of {share} ({size['Type']}) is invalid: it must be at most 50 percent of the "
                    f"{instances} instance(s) of the endpoint configuration."
                )


def _check_autoscaled_variants(backend: SageMakerModelBackend, endpoint: FakeEndpoint, config: dict[str, Any]) -> None:
    """UpdateEndpoint: AWS refuses another instance type while the variant is a scalable target."""
    autoscaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    targets = autoscaling.targets.get("sagemaker:variant:DesiredInstanceCount", {})
    old = backend.endpoint_configs.get(endpoint.endpoint_config_name)
    old_types = {v["VariantName"]: v.get("InstanceType") for v in (old.production_variants if old else [])}
    for variant in config["ProductionVariants"]:
        name = variant["VariantName"]
        scaled = f"endpoint/{endpoint.endpoint_name}/variant/{name}" in targets
        if scaled and old_types.get(name, variant.get("InstanceType")) != variant.get("InstanceType"):
            raise ValidationError(
                f"Cannot change the instance type of variant {name} while it is registered for auto scaling: "
                "deregister the scalable target first."
            )


def _invoke_endpoint(endpoints: Endpoints) -> None:
    """InvokeEndpoint: a canned answer, also for an endpoint that does not exist."""
    SageMakerRuntimeResponse.use_raw_body = True

    @adds(SageMakerRuntimeResponse)
    def invoke_endpoint(response: SageMakerRuntimeResponse) -> tuple[int, dict[str, Any], bytes | str]:
        name = response.path.split("/")[2]
        backend = sagemaker_backends[response.current_account][response.region]
        endpoint = backend.endpoints.get(name)
        if endpoint is None or endpoint.endpoint_status not in ("InService", "Updating"):
            return _refuse(400, "ValidationError", f"Endpoint {name} of account {response.current_account} not found.")
        if len(response.body) > BODY_LIMIT_BYTES:
            return _refuse(
                400,
                "ValidationError",
                "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length "
                f"less than or equal to {BODY_LIMIT_BYTES}",
            )
        headers = {key: value for key, value in response.headers.items() if key.lower().startswith("x-amzn-sagemaker-")}
        content_type = response.headers.get("Content-Type") or "application/octet-stream"
        accept = response.headers.get("Accept") or "*/*"
        try:
            status, answered, body = endpoints.invoke(endpoint.arn, response.body, content_type, accept, headers)
        except NoDataPlane as error:
            return _refuse(400, "EmulatorUnsupported", str(error))
        except HostingError as error:
            return _model_error(endpoint, 0, str(error).encode())
        if not 200 <= status < 300:
            return _model_error(endpoint, status, body)
        kept = {key: value for key, value in answered.items() if key.lower().startswith(("content-type", "x-amzn-s"))}
        kept["x-Amzn-Invoked-Production-Variant"] = endpoint.production_variants[0]["VariantName"]
        return 200, kept, body


def _model_error(endpoint: FakeEndpoint, status: int, body: bytes) -> tuple[int, dict[str, Any], str]:
    text = body.decode(errors="replace")
    blame = "client" if 400 <= status < 500 else "server"
    region, account = endpoint.arn.split(":")[3:5]
    group = f"/aws/sagemaker/Endpoints/{endpoint.endpoint_name}"
    return _refuse(
        424,
        "ModelError",
        f'Received {blame} error ({status}) from primary with message "{text}". '
        f"See the log group {group} in account {account} for more information.",
        OriginalStatusCode=status,
        OriginalMessage=text,
        LogStreamArn=f"arn:aws:logs:{region}:{account}:log-group:{group}",
    )


def _refuse(status: int, code: str, message: str, **fields: Any) -> tuple[int, dict[str, Any], str]:
    headers = {"status": status, "x-amzn-errortype": code, "Content-Type": "application/json"}
    return status, headers, json.dumps({"Message": message, **fields})
