"""The search: real trials on features, resumed, and the same space as a SageMaker request."""

from __future__ import annotations

import json
import re

import boto3
import optuna
import pytest
from botocore.validate import ParamValidator
from classifier import space
from classifier.jobs import METRICS, training_job_definition
from classifier.tuning import tuning_job_request

SETTINGS = {
    "bucket": "artifacts",
    "kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/1",
    "role_arn": "arn:aws:iam::123456789012:role/image-classifier-training",
    "image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/pytorch:1",
    "instance_type": "ml.m5.xlarge",
    "subnet_ids": ["subnet-1", "subnet-2"],
    "security_group_ids": ["sg-1"],
    "name": "image-classifier",
    "region": "us-east-1",
    "code_key": "code/abc.tar.gz",
}


def check(operation: str, request: dict) -> None:
    """Validate against botocore's own model of the service."""
    shape = boto3.client("sagemaker", region_name="us-east-1").meta.service_model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_a_search_runs_resumes_and_its_choice_trains(run_command, trained, textures, tmp_path):
    best, storage = tmp_path / "best.json", tmp_path / "study.db"
    task = ("--train", textures, "--backbone", "resnet18", "--weights", trained.folder / "model.safetensors")
    task += ("--image-size", 32, "--epochs", 2)
    for trials in (2, 1):
        done = run_command("hpo.py", *task, "--trials", trials, "--storage", storage, "--output", best)
        assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{storage}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert len({trial.params["learning_rate"] for trial in study.trials}) == 3
    choice = json.loads(best.read_text())
    assert choice == study.best_params
    assert space.LEARNING_RATES[0] <= choice["learning_rate"] <= space.LEARNING_RATES[1]
    assert choice["batch_size"] in space.BATCH_SIZES and choice["hidden"] in space.HIDDEN_UNITS
    last = float(done.stdout.split("validation_loss=")[-1])
    assert last == pytest.approx(min(trial.value for trial in study.trials), abs=1e-6)


def test_the_requests_are_valid_and_describe_one_space():
    request = tuning_job_request(SETTINGS, name="n-tune-1", dataset="dogs", hyperparameters={"epochs": 5, "hidden": 3})
    check("CreateHyperParameterTuningJob", request)
    config, static = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]["StaticHyperParameters"]
    names = {entry["Name"] for ranges in config["ParameterRanges"].values() for entry in ranges}
    assert names == {"learning-rate", "batch-size", "hidden"} and not names & static.keys()
    assert json.loads(static["epochs"]) == 5
    assert config["HyperParameterTuningJobObjective"]["MetricName"] in METRICS


def test_the_training_job_is_valid_private_and_encrypted():
    definition = training_job_definition(SETTINGS, dataset="dogs", hyperparameters={"weights": "none"})
    check("CreateTrainingJob", {"TrainingJobName": "n-train-1", **definition})
    assert json.loads(definition["HyperParameters"]["sagemaker_program"]) == "model/train.py"
    code = json.loads(definition["HyperParameters"]["sagemaker_submit_directory"])
    assert code == "s3://artifacts/code/abc.tar.gz"
    source = definition["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert source == "s3://artifacts/datasets/dogs/"
    assert definition["OutputDataConfig"]["KmsKeyId"] == definition["ResourceConfig"]["VolumeKmsKeyId"]
    assert definition["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert definition["EnableInterContainerTrafficEncryption"] is True
    for metric in definition["AlgorithmSpecification"]["MetricDefinitions"]:
        assert len(metric["Regex"]) <= 500 and re.compile(metric["Regex"]).groups == 1


def test_the_sagemaker_backend_prints_the_request(run_command, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(SETTINGS))
    arguments = ("hpo.py", "--backend", "sagemaker", "--dataset", "dogs", "--dry-run", "--settings", settings)
    done = run_command(*arguments, "--trials", 4, "--weights", "none")
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    check("CreateHyperParameterTuningJob", request)
    assert request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 4
    assert len(request["HyperParameterTuningJobName"]) <= 32
    settings.write_text(json.dumps({"name": "x"}))
    refused = run_command(*arguments)
    assert refused.returncode == 2 and "lacks bucket" in refused.stderr and refused.stderr.count("\n") == 1
