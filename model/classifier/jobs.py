"""SageMaker training jobs: the part of the request that training and tuning jobs share.

Limits and names: the SageMaker API's CreateTrainingJob and CreateHyperParameterTuningJob.
"""

import json
from collections.abc import Mapping

# One capturing group of fixed-point digits each, as the service requires; train.py prints these names.
METRICS = {
    name: rf"\b{name}=([0-9]+\.[0-9]+)"
    for name in ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
}


def script_hyperparameters(settings: Mapping, values: Mapping[str, object], program: str = "model/train.py") -> dict:
    """The hyperparameters that make AWS's PyTorch image fetch the project's code and run `program --key value`.

    Each is a JSON text, as the image's script mode reads them.
    """
    script = {
        "sagemaker_program": program,
        "sagemaker_submit_directory": f"s3://{settings['bucket']}/{settings['code_key']}",
        "sagemaker_region": settings["region"],
        "sagemaker_container_log_level": 20,
    }
    return {name: json.dumps(value) for name, value in {**values, **script}.items()}


def training_job_definition(
    settings: Mapping,
    *,
    dataset: str,
    hyperparameters: Mapping[str, object] | None = None,
    program: str = "model/train.py",
    instance_count: int = 1,
    volume_gb: int = 50,
    max_runtime_seconds: int = 4 * 3600,
) -> dict:
    """CreateTrainingJob's request without its TrainingJobName.

    settings: bucket, kms_key_arn, role_arn, image_uri, instance_type, subnet_ids, security_group_ids, region, code_key.
    dataset: the name under datasets/ in the bucket, mounted whole as the channel `train`, where train.py looks for
        train/valid/test folders itself. hyperparameters: train.py's flags without the dashes.
    """
    bucket, key = settings["bucket"], settings["kms_key_arn"]
    return {
        "AlgorithmSpecification": {
            "TrainingImage": settings["image_uri"],
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in METRICS.items()],
        },
        "HyperParameters": script_hyperparameters(settings, hyperparameters or {}, program),
        "RoleArn": settings["role_arn"],
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        # The slash keeps a data set named `dogs` from taking in `dogs-2`.
                        "S3Uri": f"s3://{bucket}/datasets/{dataset}/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
                "InputMode": "File",
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/training", "KmsKeyId": key},
        "ResourceConfig": {
            "InstanceType": settings["instance_type"],
            "InstanceCount": instance_count,
            "VolumeSizeInGB": volume_gb,
            "VolumeKmsKeyId": key,
        },
        "VpcConfig": {
            "Subnets": list(settings["subnet_ids"]),
            "SecurityGroupIds": list(settings["security_group_ids"]),
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": max_runtime_seconds},
        # The image fetches the code from S3 itself, which network isolation would forbid.
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": True,
    }
