"""Train once on the box: data from the artifact bucket in, a release in the artifact bucket out.

    run.py --bucket B --dataset NAME --kms-key-arn ARN -- --epochs=12 --learning-rate=0.001

What follows `--` goes to model/train.py as it stands. Works below the current directory. Every step leaves a mark that
the next start recognises, so a restart or a reboot repeats nothing that is finished; train.py itself goes on from
`checkpoints`, which supervise.py keeps in S3.
Exit status: 0 released, 2 a mistake that another try cannot mend (one line on stderr), else whatever failed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import interpreter

CODE = Path(__file__).resolve().parents[1]
RELEASE = Path("release")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bucket", required=True, help="the artifact bucket")
    parser.add_argument("--dataset", required=True, help="name below datasets/ in the bucket")
    parser.add_argument("--kms-key-arn", required=True, help="key that encrypts the release")
    parser.add_argument("training", nargs="*", help="arguments of model/train.py, after --")
    arguments = parser.parse_args()

    if RELEASE.exists():
        print(f"already released: {RELEASE.read_text()}")
        return 0
    interpreter.ensure(CODE / "ec2_userdata" / "requirements.txt", Path("venv"))

    # These need boto3 of the version that is required, so only now.
    sys.path.insert(0, str(CODE / "model"))
    import boto3
    import dataset
    from classifier import release, storage

    s3 = boto3.client("s3")
    try:
        count = dataset.download(s3, arguments.bucket, arguments.dataset, Path("data"))
    except dataset.DatasetError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    print(f"dataset {arguments.dataset}: {count} files, each as its manifest says", flush=True)

    archive = Path("output/model.tar.gz").absolute()
    if not archive.with_name("manifest.json").exists():  # which train.py writes last
        archive.parent.mkdir(exist_ok=True)
        train = [sys.executable, str(CODE / "model" / "train.py"), "--train", "data", "--archive", str(archive)]
        train += ["--model-dir", "output/model", "--output-data-dir", "output", "--checkpoint-dir", "checkpoints"]
        train += ["--feature-cache", "checkpoints/features", *arguments.training]
        status = subprocess.run(train).returncode
        if status != 0:
            print(f"run.py: train.py ended with status {status}", file=sys.stderr)
            return status

    try:
        with storage.accessing(f"s3://{arguments.bucket}/releases/"):
            key = release.publish(s3, archive, arguments.bucket, arguments.kms_key_arn)
    except storage.StorageError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    RELEASE.write_text(key)
    print(f"released s3://{arguments.bucket}/{key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
