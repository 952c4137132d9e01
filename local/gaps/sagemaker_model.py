"""SageMaker model gaps of moto 5.2.5: isolation is not read back, and a missing image, archive or role is taken."""

import json
import re
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr.models import ecr_backends
from moto.iam.access_control import PermissionResult
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from local.gaps.patch import around

_ECR_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[a-z0-9._/-]+)"
    r"(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def fill() -> None:
    """CreateModel, DescribeModel: EnableNetworkIsolation is not read back. CreateModel: AWS refuses what is missing."""

    @around(SageMakerResponse)
    def create_model(original: Any, response: SageMakerResponse) -> ActionResult:
        backend = response.sagemaker_backend
        name = response._get_param("ModelName")
        if name in backend._models:
            raise ValidationError(f'Cannot create already existing model "{backend._models[name].arn}".')
        check_role(backend, response._get_param("ExecutionRoleArn"))
        for container in [response._get_param("PrimaryContainer"), *(response._get_param("Containers") or [])]:
            if container:
                _check_image(backend, container.get("Image", ""))
                _check_archive(backend, archive_url(container), response._get_param("ExecutionRoleArn"))
        result = original(response)
        backend._models[name].enable_network_isolation = bool(response._get_param("EnableNetworkIsolation"))
        return result


def archive_url(container: dict[str, Any]) -> str | None:
    """The s3:// URL of a container's model archive, given either way that CreateModel takes it."""
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    return container.get("ModelDataUrl") or source.get("S3Uri")


def read_archive(backend: SageMakerModelBackend, url: str) -> bytes | None:
    """The bytes of the object at an s3:// URL, or None where there is no such object."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    s3 = s3_backends[backend.account_id][backend.partition]
    found = s3.buckets[bucket].keys.get(key) if bucket in s3.buckets else None
    # A deleted object's newest version is a marker without content.
    return getattr(found, "value", None)


def check_role(backend: SageMakerModelBackend, role_arn: str) -> None:
    """Refuse, as AWS does, a role that does not exist or that SageMaker may not assume."""
    roles = iam_backends[backend.account_id][backend.partition].roles.values()
    trust = next((role.assume_role_policy_document for role in roles if role.arn == role_arn), "{}")
    statements = json.loads(trust).get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        services = statement.get("Principal", {}).get("Service", [])
        if "sagemaker.amazonaws.com" in ([services] if isinstance(services, str) else services):
            return
    raise ValidationError(
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


def _check_image(backend: SageMakerModelBackend, image: str) -> None:
    """Images of this account must exist in its ECR; other accounts' registries cannot be looked into from here."""
    match = _ECR_IMAGE.fullmatch(image)
    if not match:
        raise ValidationError(f'Using non-ECR image "{image}" without Vpc repository access mode is not supported.')
    if match["account"] != backend.account_id:
        return
    repository = ecr_backends[backend.account_id][match["region"]].repositories.get(match["repository"])
    for known in repository.images if repository else []:
        if match["digest"]:
            if known.get_image_digest() == match["digest"]:
                return
        elif (match["tag"] or "latest") in known.image_tags:
            return
    raise ValidationError(f"Requested image {image} not found.")


def _check_archive(backend: SageMakerModelBackend, url: str | None, role_arn: str) -> None:
    if url and read_archive(backend, url) is None:
        raise ValidationError(f"Could not find model data at {url}.")
    bucket = url and s3_backends[backend.account_id][backend.partition].buckets[url.split("/")[2]]
    if url and bucket.get_permission("s3:GetObject", url.replace("s3://", "arn:aws:s3:::")) == PermissionResult.DENIED:
        raise ValidationError(
            f"Could not access model data at {url}. Please ensure that the role {role_arn} has s3:GetObject "
            f"permissions and that the object is located in {backend.region_name}."
        )
