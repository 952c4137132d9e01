"""Upload a trained archive as a release, under the name of its own content.

    python model/publish.py --archive build/model.tar.gz --bucket BUCKET

The last line on stdout is the key that Terraform's variable release_key takes. Doing it again changes nothing.
"""

from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError
from classifier.command import Parser, run
from classifier.mistake import Mistake
from classifier.release import publish
from classifier.storage import StorageError, accessing


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="what train.py --archive wrote")
    parser.add_argument("--bucket", required=True, help="the stack's artifact bucket")
    parser.add_argument("--kms-key-arn", metavar="ARN", help="to encrypt with (the bucket's default)")
    options = parser.parse()
    try:
        with accessing(f"s3://{options.bucket}/releases/"):
            print(publish(boto3.client("s3"), options.archive, options.bucket, options.kms_key_arn))
    except (BotoCoreError, StorageError) as error:
        raise Mistake(f"cannot publish {options.archive}: {error}") from error


if __name__ == "__main__":
    run(main)
