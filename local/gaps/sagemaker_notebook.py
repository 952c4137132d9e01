"""SageMaker notebook gaps of moto 5.2.5."""

from typing import Any

from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeSagemakerNotebookInstance, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from local.gaps.patch import around
from local.gaps.sagemaker_model import check_role

LIFECYCLE_LIMIT_CHARACTERS = 16_384


def fill() -> None:
    _notebook_platform()
    _lifecycle_configuration_tags()
    _lifecycle_configuration_limits()


def _notebook_platform() -> None:
    """CreateNotebookInstance, DescribeNotebookInstance: PlatformIdentifier and InstanceMetadataServiceConfiguration are
    not read back; and any role and lifecycle configuration is taken."""

    @around(SageMakerResponse)
    def create_notebook_instance(original: Any, response: SageMakerResponse) -> ActionResult:
        backend = response.sagemaker_backend
        check_role(backend, response._get_param("RoleArn"))
        lifecycle = response._get_param("LifecycleConfigName")
        if lifecycle and lifecycle not in backend.notebook_instance_lifecycle_configurations:
            raise ValidationError(f"Unable to find Notebook Instance Lifecycle Config '{lifecycle}'.")
        result = original(response)
        notebook = backend.notebook_instances[response._get_param("NotebookInstanceName")]
        notebook.platform_identifier = response._get_param("PlatformIdentifier") or "notebook-al2-v2"
        notebook.instance_metadata = response._get_param("InstanceMetadataServiceConfiguration") or {
            "MinimumInstanceMetadataServiceVersion": "1"
        }
        return result

    @around(FakeSagemakerNotebookInstance)
    def to_dict(original: Any, notebook: FakeSagemakerNotebookInstance) -> dict[str, Any]:
        return original(notebook) | {
            "PlatformIdentifier": notebook.platform_identifier,
            "InstanceMetadataServiceConfiguration": notebook.instance_metadata,
        }


def _lifecycle_configuration_tags() -> None:
    """ListTags, AddTags and DeleteTags end in a 500 for a lifecycle configuration, which loses the tags it is given."""

    @around(SageMakerResponse)
    def create_notebook_instance_lifecycle_config(original: Any, response: SageMakerResponse) -> ActionResult:
        result = original(response)
        name = response._get_param("NotebookInstanceLifecycleConfigName")
        config = response.sagemaker_backend.notebook_instance_lifecycle_configurations[name]
        config.tags = response._get_param("Tags") or []
        return result

    @around(SageMakerModelBackend)
    def _get_resource_from_arn(original: Any, backend: SageMakerModelBackend, arn: str) -> Any:
        kind, _, name = arn.split(":")[-1].partition("/")
        if kind == "notebook-instance-lifecycle-config":
            if name not in backend.notebook_instance_lifecycle_configurations:
                raise ValidationError(f"Could not find {kind} with name {name}")
            return backend.notebook_instance_lifecycle_configurations[name]
        return original(backend, arn)


def _lifecycle_configuration_limits() -> None:
    """CreateNotebookInstanceLifecycleConfig: AWS refuses a script above 16,384 characters (in base64)."""

    @around(SageMakerModelBackend)
    def create_notebook_instance_lifecycle_config(
        original: Any, backend: SageMakerModelBackend, **configuration: Any
    ) -> Any:
        for event in ("on_create", "on_start"):
            for hook in configuration.get(event) or []:
                if len(hook.get("Content", "")) > LIFECYCLE_LIMIT_CHARACTERS:
                    member = "onCreate" if event == "on_create" else "onStart"
                    raise ValidationError(
                        f"1 validation error detected: Value at '{member}.1.member.content' failed to satisfy "
                        f"constraint: Member must have length less than or equal to {LIFECYCLE_LIMIT_CHARACTERS}"
                    )
        return original(backend, **configuration)
