"""CodeBuild gaps of moto 5.2.5. No build runs."""

import contextlib
import hashlib
import io
import json
import zipfile
from typing import Any

from moto.codebuild.exceptions import InvalidInputException, ResourceNotFoundException
from moto.codebuild.models import CodeBuild, CodeBuildBackend
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult
from moto.ecr.exceptions import ImageAlreadyExistsException
from moto.ecr.models import ecr_backends
from moto.s3.models import s3_backends

from local.gaps.patch import adds, around

# What moto's project keeps from its creation and shows as it was given.
_KEPT = (
    "artifacts",
    "cache",
    "concurrentBuildLimit",
    "description",
    "encryptionKey",
    "environment",
    "logsConfig",
    "queuedTimeoutInMinutes",
    "serviceRole",
    "source",
    "sourceVersion",
    "tags",
    "timeoutInMinutes",
    "vpcConfig",
)


def fill() -> None:
    _project_settings()
    _project_update()
    _project_deletion_by_arn()
    _build_pushes_a_stand_in()


def _project_settings() -> None:
    """CreateProject, BatchGetProjects: encryptionKey and concurrentBuildLimit are not read back."""

    @around(CodeBuildResponse)
    def create_project(original: Any, response: CodeBuildResponse) -> ActionResult:
        result = original(response)
        _keep(response, response.codebuild_backend.codebuild_projects[response._get_param("name")])
        return result


def _project_update() -> None:
    """UpdateProject is missing."""

    @adds(CodeBuildResponse)
    def update_project(response: CodeBuildResponse) -> ActionResult:
        project = response.codebuild_backend.codebuild_projects.get(response._get_param("name"))
        if project is None:
            raise ResourceNotFoundException(f"Project cannot be found: {response._get_param('name')}")
        _keep(response, project)
        return ActionResult({"project": project.project_metadata})


def _project_deletion_by_arn() -> None:
    """DeleteProject: given an ARN, which AWS takes for a name too, nothing is deleted."""

    @around(CodeBuildBackend)
    def delete_project(original: Any, backend: CodeBuildBackend, project_name: str) -> None:
        original(backend, project_name.rpartition(":project/")[2])


def _keep(response: CodeBuildResponse, project: CodeBuild) -> None:
    for name in _KEPT:
        if (value := response._get_param(name)) is not None:
            project.project_metadata[name] = value


def _build_pushes_a_stand_in() -> None:
    """StartBuild takes any source, and BatchGetBuilds reports success with nothing built.

    For an image build, whose project names REPOSITORY_URL and whose source is a zip that holds its tag, the repository
    gets a manifest without layers: without a docker engine that is as much of an image as there can be.
    """

    @around(CodeBuildBackend)
    def start_build(
        original: Any, backend: CodeBuildBackend, project_name: str, source_version: str | None = None, *rest: Any
    ) -> dict[str, Any]:
        metadata = backend.codebuild_projects[project_name].project_metadata
        variables = {entry["name"]: entry["value"] for entry in metadata["environment"].get("environmentVariables", [])}
        if "REPOSITORY_URL" in variables:
            bucket, _, key = metadata["source"]["location"].partition("/")
            found = s3_backends[backend.account_id][backend.partition].get_object(bucket, key, source_version)
            if found is None:
                raise InvalidInputException(f"Source archive s3://{bucket}/{key} version {source_version} not found")
            with zipfile.ZipFile(io.BytesIO(found.value)) as source:
                _push(backend, variables["REPOSITORY_URL"], source.read("tag").decode())
        return original(backend, project_name, source_version, *rest)


def _push(backend: CodeBuildBackend, repository_url: str, tag: str) -> None:
    """A manifest without layers, tagged; nothing where the tag is taken."""
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": 0,
                "digest": f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}",
            },
            "layers": [],
        }
    )
    ecr = ecr_backends[backend.account_id][backend.region_name]
    with contextlib.suppress(ImageAlreadyExistsException):
        ecr.put_image(
            repository_url.partition("/")[2],
            manifest,
            tag,
            digest=f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}",
        )
