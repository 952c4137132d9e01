"""Submit a training or tuning job to SageMaker, from a notebook or any machine with AWS credentials.

    python model/submit.py --data DIR                      # upload the folder, train, follow, publish
    python model/submit.py --dataset dogs --spot --instances 2
    python model/submit.py --dataset dogs --tune --features JOB    # search, on the features that a job extracted
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
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from classifier.command import Parser, positive_float, positive_int
from classifier.mistake import Mistake
from classifier.storage import StorageError, accessing
from classifier.tuning import STRATEGIES
from submission.dataset import NAME, upload_dataset
from submission.features import find_features, provide
from submission.following import JobFailed, ProgressLine, follow, training_state, tuning_state
from submission.request import build_request
from submission.result import release_archive
from submission.settings import read_settings


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__.partition("\n")[0])
    parser.usage = "%(prog)s (--data DIR | --dataset NAME | --follow JOB) [options]"
    group = parser.add_argument_group("what to do")
    group.add_argument("--data", type=Path, metavar="DIR", help="folder of class folders to upload first")
    group.add_argument("--dataset", metavar="NAME", help="data set in the bucket (the name of DIR)")
    group.add_argument("--upload-only", action="store_true", help="upload --data and start no job")
    group.add_argument("--follow", metavar="JOB", help="start nothing, follow this job")
    group.add_argument("--dry-run", action="store_true", help="print the request and call nothing")
    group.add_argument("--settings", type=Path, metavar="FILE", help="($SUBMISSION_SETTINGS, else submission.json)")
    group = parser.add_argument_group("job")
    help_text = "a flag of train.py; repeatable"
    group.add_argument("--hyperparameter", action="append", default=[], metavar="KEY=VALUE", help=help_text)
    help_text = "extracted before, in the same precision: by that job, or in train.py's --feature-cache"
    group.add_argument("--features", metavar="JOB|DIR", help=help_text)
    group.add_argument("--instance-type", metavar="TYPE", help="(the settings')")
    group.add_argument("--instances", type=positive_int, default=1, metavar="N", help="of one job (%(default)s)")
    group.add_argument("--volume-gb", type=positive_int, default=50, metavar="GB", help="(%(default)s)")
    hours = {"type": positive_float, "metavar": "HOURS"}
    group.add_argument("--max-runtime-hours", **hours, default=4.0, help="then SageMaker ends it (4)")
    group.add_argument("--spot", action="store_true", help="on spare capacity: cheaper, may be interrupted and resumed")
    group.add_argument("--max-wait-hours", **hours, help="of a spot job, waiting and running (twice its runtime)")
    group = parser.add_argument_group("search")
    group.add_argument("--tune", action="store_true", help="a tuning job: one training job a trial")
    group.add_argument("--strategy", choices=STRATEGIES, help="(Bayesian)")
    group.add_argument("--trials", type=positive_int, metavar="N", help="(10; all points of a Grid)")
    group.add_argument("--parallel", type=positive_int, metavar="N", help="trials at a time (2)")
    help_text = "finished tuning job to learn from; repeatable"
    group.add_argument("--warm-start", action="append", default=[], metavar="JOB", help=help_text)
    help_text = "the --warm-start jobs had other data or code"
    group.add_argument("--transfer-learning", action="store_true", help=help_text)
    options = parser.parse(arguments)
    for name in ("strategy", "trials", "parallel", "warm_start", "transfer_learning"):
        if getattr(options, name) and not options.tune:
            raise Mistake(f"--{name.replace('_', '-')}: only a search has it: add --tune")
    if options.transfer_learning and not options.warm_start:
        raise Mistake("--transfer-learning: from which job? Add --warm-start JOB")
    return options


def run(options: argparse.Namespace) -> None:
    settings = read_settings(options.settings)
    if options.instance_type:
        settings["instance_type"] = options.instance_type
    if name := options.follow or start(options, settings):
        release_key, uri = follow_and_release(settings, name)
        print(f"release_key={release_key}")
        print(uri)


def start(options: argparse.Namespace, settings: dict) -> str | None:
    """Upload what is to be uploaded and start a job; its name, None where none was to be started."""
    if options.upload_only and not options.data:
        raise Mistake("--upload-only: give --data DIR, the folder to upload")
    if not (options.data or options.dataset):
        raise Mistake("give --data DIR to upload a folder, or --dataset NAME for one in the bucket")
    dataset = options.dataset or options.data.resolve().name
    if not NAME.fullmatch(dataset):
        raise Mistake(f"--dataset {dataset!r}: use letters, digits, '.', '_' and '-'")
    with TemporaryDirectory() as scratch:
        features = find_features(options.features, settings, Path(scratch)) if options.features else None
        request = build_request(options, settings, dataset, features and features.uri, time.time())
        if options.dry_run:
            print(json.dumps(request, indent=2))
            return None
        s3 = boto3.client("s3", region_name=settings["region"])
        if features and not options.upload_only:
            with accessing(features.uri):
                provide(s3, features, settings)
        if options.data:
            upload(s3, options.data, settings, dataset)
        if options.upload_only:
            return None
    sagemaker = boto3.client("sagemaker", region_name=settings["region"])
    if options.tune:
        sagemaker.create_hyper_parameter_tuning_job(**request)
        return request["HyperParameterTuningJobName"]
    sagemaker.create_training_job(**request)
    return request["TrainingJobName"]


def upload(s3, folder: Path, settings: dict, dataset: str) -> None:
    line, began = ProgressLine(sys.stderr), time.monotonic()

    def progress(done: int, total: int) -> None:
        if line.terminal or done == total:
            line.show(f"datasets/{dataset}: {done} of {total} files", time.monotonic() - began)

    with accessing(f"s3://{settings['bucket']}/datasets/{dataset}/"):
        uri = upload_dataset(s3, folder, settings["bucket"], dataset, settings["kms_key_arn"], progress)
    line.end()
    print(f"data set {uri}", file=sys.stderr)


def follow_and_release(settings: dict, name: str) -> tuple[str, str]:
    """Wait for a job, copy its archive to its content-addressed key; (release key, S3 URI)."""
    sagemaker = boto3.client("sagemaker", region_name=settings["region"])
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
    with accessing(f"s3://{settings['bucket']}/releases/"):
        release_key = release_archive(s3, archive_uri, settings["bucket"], settings["kms_key_arn"])
    return release_key, f"s3://{settings['bucket']}/{release_key}"


def main(arguments: list[str] | None = None) -> int:
    try:
        run(parse_arguments(arguments))
    except Mistake as mistake:
        print(f"submit.py: {mistake}", file=sys.stderr)
        return 2
    except (JobFailed, StorageError, ClientError, BotoCoreError) as error:
        print(f"submit.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
