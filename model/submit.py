"""Submit a training or tuning job to SageMaker, from a notebook or any machine with AWS credentials.

    python model/submit.py --data DIR                      # upload the folder, train, follow, publish
    python model/submit.py --dataset dogs --tune           # search hyperparameters on a data set uploaded before
    python model/submit.py --dataset dogs --dry-run        # print the request and call nothing
    python model/submit.py --data DIR --upload-only        # for the EC2 trainer, say
    python model/submit.py --follow JOB                    # go on following a job after Ctrl-C

Bucket, role, image and network come from the file that --settings or SUBMISSION_SETTINGS names, by default
submission.json beside this script: `terraform output -json submission > model/submission.json`. On success the last two
lines of stdout are release_key=releases/<sha256>/model.tar.gz, for `terraform apply -var release_key=...`, and the
archive's S3 URI. Exit status: 0, 1 where AWS or the job failed, 2 for a mistake in the call, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from classifier.command import Parser
from classifier.jobs import training_job_definition
from classifier.mistake import Mistake
from classifier.tuning import tuning_job_request
from submission.dataset import NAME, upload_dataset
from submission.following import JobFailed, ProgressLine, follow, training_state, tuning_state
from submission.result import release_archive

SETTINGS = (
    "bucket",
    "code_key",
    "image_uri",
    "instance_type",
    "kms_key_arn",
    "name",
    "region",
    "role_arn",
    "security_group_ids",
    "subnet_ids",
)
# CreateTrainingJob and CreateHyperParameterTuningJob allow names of this length.
LONGEST_TRAINING_NAME, LONGEST_TUNING_NAME = 63, 32


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__.partition("\n")[0])
    parser.add_argument("--settings", type=Path, help="JSON file; default $SUBMISSION_SETTINGS, else submission.json")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of class folders to upload first")
    parser.add_argument("--dataset", metavar="NAME", help="data set in the bucket; default the name of DIR")
    parser.add_argument("--upload-only", action="store_true", help="upload --data and start no job")
    parser.add_argument("--tune", action="store_true", help="a tuning job instead of a training job")
    parser.add_argument("--instance-type", help="instead of the settings'")
    parser.add_argument(
        "--hyperparameter", action="append", default=[], metavar="KEY=VALUE", help="a flag of train.py; repeatable"
    )
    parser.add_argument("--follow", metavar="JOB", help="start nothing, follow this job")
    parser.add_argument("--dry-run", action="store_true", help="print the request and call nothing")
    return parser.parse(arguments)


def read_settings(path: Path | None) -> dict:
    """The Terraform output's settings; Mistake where the file or one of them is missing."""
    path = path or Path(os.environ.get("SUBMISSION_SETTINGS") or Path(__file__).with_name("submission.json"))
    try:
        settings = json.loads(path.read_text())
    except OSError as error:
        remedy = "write it with: terraform output -json submission"
        raise Mistake(f"--settings {path}: {error.strerror}: {remedy} > {path}") from error
    except ValueError as error:
        raise Mistake(f"--settings {path}: not JSON: {error}") from error
    if missing := [key for key in SETTINGS if not (isinstance(settings, dict) and settings.get(key))]:
        raise Mistake(f"--settings {path}: lacks {', '.join(missing)}: write it with terraform output -json submission")
    return settings


def parse_hyperparameters(pairs: list[str]) -> dict[str, object]:
    """key=value texts to values: numbers and booleans as such, anything else as text; Mistake for another form."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise Mistake(f"--hyperparameter {pair}: write key=value, epochs=20 for one")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        simple = isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
        # As the flag is spelt, so that a slip is not found by the job, minutes later.
        values[key.lstrip("-").replace("_", "-")] = value if simple else text
    return values


def job_name(name: str, kind: str, seconds: float) -> str:
    """`<name>-<kind>-<UTC time>`, which the roles' policies allow; Mistake where SageMaker's limit is too short."""
    if kind == "tune":
        # 32 characters are few: the month is enough, since a finished search is looked for by its start.
        result, longest = f"{name}-tune-{time.strftime('%m%d%H%M%S', time.gmtime(seconds))}", LONGEST_TUNING_NAME
    else:
        result, longest = f"{name}-train-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}", LONGEST_TRAINING_NAME
    if len(result) > longest:
        raise Mistake(f"{result}: SageMaker allows {longest} characters: shorten Terraform's variable name ({name})")
    return result


def build_request(options: argparse.Namespace, settings: dict, dataset: str, seconds: float) -> dict:
    """The request of CreateTrainingJob, or with --tune of CreateHyperParameterTuningJob."""
    hyperparameters = parse_hyperparameters(options.hyperparameter)
    if options.tune:
        name = job_name(settings["name"], "tune", seconds)
        request = tuning_job_request(settings, name=name, dataset=dataset, hyperparameters=hyperparameters)
        if searched := hyperparameters.keys() - request["TrainingJobDefinition"]["StaticHyperParameters"].keys():
            raise Mistake(f"--hyperparameter {min(searched)}: the search varies it: leave it out")
        return request
    definition = training_job_definition(settings, dataset=dataset, hyperparameters=hyperparameters)
    return {"TrainingJobName": job_name(settings["name"], "train", seconds), **definition}


def upload(options: argparse.Namespace, settings: dict, dataset: str) -> None:
    s3 = boto3.client("s3", region_name=settings["region"])
    line, start = ProgressLine(sys.stderr), time.monotonic()

    def progress(done: int, total: int) -> None:
        if line.terminal or done == total:
            line.show(f"datasets/{dataset}: {done} of {total} files", time.monotonic() - start)

    uri = upload_dataset(s3, options.data, settings["bucket"], dataset, settings["kms_key_arn"], progress)
    line.end()
    print(f"data set {uri}", file=sys.stderr)


def follow_and_release(sagemaker, settings: dict, name: str) -> tuple[str, str]:
    """Wait for a job, copy its archive to its content-addressed key; (release key, S3 URI)."""
    tuning = name.startswith(f"{settings['name']}-tune-")
    describe = tuning_state if tuning else training_state
    try:
        archive_uri = follow(lambda: describe(sagemaker, name), name)
    except KeyboardInterrupt:
        verb, option = (
            ("stop-hyper-parameter-tuning-job", "--hyper-parameter-tuning-job-name")
            if tuning
            else ("stop-training-job", "--training-job-name")
        )
        print(
            f"\n{name} goes on. Follow it: python {sys.argv[0]} --follow {name}\n"
            f"Stop it: aws sagemaker {verb} {option} {name} --region {settings['region']}",
            file=sys.stderr,
        )
        raise
    print(f"archive of the job {archive_uri}", file=sys.stderr)
    s3 = boto3.client("s3", region_name=settings["region"])
    release_key = release_archive(s3, archive_uri, settings["bucket"], settings["kms_key_arn"])
    return release_key, f"s3://{settings['bucket']}/{release_key}"


def run(options: argparse.Namespace) -> None:
    settings = read_settings(options.settings)
    if options.instance_type:
        settings["instance_type"] = options.instance_type
    sagemaker = boto3.client("sagemaker", region_name=settings["region"])
    if options.follow:
        name = options.follow
    else:
        if options.upload_only and not options.data:
            raise Mistake("--upload-only: give --data DIR, the folder to upload")
        if not (options.data or options.dataset):
            raise Mistake("give --data DIR to upload a folder, or --dataset NAME for one in the bucket")
        dataset = options.dataset or options.data.resolve().name
        if not NAME.fullmatch(dataset):
            raise Mistake(f"--dataset {dataset!r}: use letters, digits, '.', '_' and '-'")
        request = build_request(options, settings, dataset, time.time())
        if options.dry_run:
            print(json.dumps(request, indent=2))
            return
        if options.data:
            upload(options, settings, dataset)
        if options.upload_only:
            return
        if options.tune:
            name = request["HyperParameterTuningJobName"]
            sagemaker.create_hyper_parameter_tuning_job(**request)
        else:
            name = request["TrainingJobName"]
            sagemaker.create_training_job(**request)
    release_key, uri = follow_and_release(sagemaker, settings, name)
    print(f"release_key={release_key}")
    print(uri)


def main(arguments: list[str] | None = None) -> int:
    try:
        run(parse_arguments(arguments))
    except Mistake as mistake:
        print(f"submit.py: {mistake}", file=sys.stderr)
        return 2
    except (JobFailed, ClientError, BotoCoreError, boto3.exceptions.Boto3Error) as error:
        print(f"submit.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
