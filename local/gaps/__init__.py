"""What moto 5.2.5 lacks, one module a service, each gap-fill named after its gap so that it can be dropped later.

Every module has `fill(...)`, called once in the account's process before it serves. Nothing here may be imported
and filled in a process that uses moto for something else: moto's own classes are changed in place.
"""

from local.endpoints import Endpoints
from local.functions import Functions
from local.gaps import (
    application_autoscaling,
    autoscaling,
    codebuild,
    ec2,
    images,
    lambda_concurrency,
    lambda_configuration,
    lambda_invoke,
    logs,
    s3,
    sagemaker_endpoint,
    sagemaker_model,
    sagemaker_notebook,
)


def fill(endpoints: Endpoints, functions: Functions, lambda_concurrency_quota: int) -> None:
    """Fill every gap; `endpoints` and `functions` are the data plane that the filled calls reach."""
    for module in (
        application_autoscaling,
        autoscaling,
        codebuild,
        ec2,
        images,
        lambda_configuration,
        logs,
        s3,
        sagemaker_notebook,
    ):
        module.fill()
    sagemaker_model.fill()
    sagemaker_endpoint.fill(endpoints)
    lambda_invoke.fill(functions)
    lambda_concurrency.fill(lambda_concurrency_quota)
