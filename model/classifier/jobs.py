"""SageMaker training jobs: the part of the request that training and tuning jobs share.

Names and limits: the SageMaker API's CreateTrainingJob and CreateHyperParameterTuningJob.
"""

import json
import re
from collections.abc import Mapping

# One capturing group of fixed-point digits each, as the service requires; train.py prints these names.
METRICS = {
    name: rf"\b{name}=([0-9]+\.[0-9]+)"
    for name in ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
}
# Where a job's checkpoints stand in its container; the features of a frozen backbone in a folder of that name below.
CHECKPOINTS, FEATURES = "/opt/ml/checkpoints", "features/"
# Families with disks of their own, which encrypt themselves: the service refuses a key for them.
OWN_DISKS = re.compile(r"ml\.(?:[a-z]+\d[a-z]*d[a-z]*|[gp][5-9][a-z]*(?:-\w+)?|trn\d[a-z]*)\.")


def checkpoints_uri(settings: Mapping, job: str) -> str:
    """The S3 folder of a job's checkpoints; with its slash, so that one job's name may begin another's."""
    return f"s3://{settings['bucket']}/training/{job}/checkpoints/"


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
    features_uri: str | None = None,
    checkpoints_uri: str | None = None,
    instance_count: int = 1,
    volume_gb: int = 50,
    max_runtime_seconds: int = 4 * 3600,
    max_wait_seconds: int | None = None,
) -> dict:
    """CreateTrainingJob's request without its TrainingJobName.

    settings: bucket, kms_key_arn, role_arn, image_uri, instance_type, subnet_ids, security_group_ids, region, code_key.
    dataset: the name under datasets/ in the bucket, mounted whole as the channel `train`, where train.py looks for
        train/valid/test folders itself. hyperparameters: train.py's flags without the dashes.
    features_uri: S3 folder of features.db, mounted as the channel `features`, which train.py reads and never writes.
    checkpoints_uri: S3 folder that the service fills during the job, and restores before it begins.
    instance_count: from 2 on, too, the image starts train.py once on each host and nothing else: the hosts' names in
        SM_HOSTS are enough for it to join them.
    max_wait_seconds: of a spot job, waiting for capacity and running; None for a job that is not to be interrupted.
    """
    bucket, key = settings["bucket"], settings["kms_key_arn"]
    # The slash keeps a data set named `dogs` from taking in `dogs-2`.
    channels = {"train": f"s3://{bucket}/datasets/{dataset}/"} | ({"features": features_uri} if features_uri else {})
    definition = {
        "AlgorithmSpecification": {
            "TrainingImage": settings["image_uri"],
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in METRICS.items()],
        },
        "HyperParameters": script_hyperparameters(settings, hyperparameters or {}, program),
        "RoleArn": settings["role_arn"],
        "InputDataConfig": [channel(name, uri) for name, uri in channels.items()],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/training", "KmsKeyId": key},
        "ResourceConfig": {
            "InstanceType": settings["instance_type"],
            "InstanceCount": instance_count,
            "VolumeSizeInGB": volume_gb,
            **({} if OWN_DISKS.match(settings["instance_type"]) else {"VolumeKmsKeyId": key}),
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
    if checkpoints_uri:
        definition["CheckpointConfig"] = {"S3Uri": checkpoints_uri, "LocalPath": CHECKPOINTS}
    if max_wait_seconds:
        definition["EnableManagedSpotTraining"] = True
        definition["StoppingCondition"]["MaxWaitTimeInSeconds"] = max_wait_seconds
    return definition


def channel(name: str, uri: str) -> dict:
    """One of InputDataConfig: the S3 folder's files, all of them on each host, as /opt/ml/input/data/<name>."""
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}
