"""What S3 refuses, told with the place and what helps: botocore's own message names neither bucket nor key."""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import ClientError

# By the code of S3's answer; what boto3 raises of an upload has the answer in its text alone.
DENIED = "let your role, the bucket's policy and its key's allow it, or use the notebook's role"
REMEDIES = {
    "AccessDenied": DENIED,
    "403": DENIED,
    "NoSuchBucket": "give the stack's bucket, terraform output artifact_bucket",
}


class StorageError(Exception):
    """S3 refused: where, why, and the remedy, in one line."""


@contextmanager
def accessing(uri: str) -> Iterator[None]:
    """Raise StorageError with this s3:// URI instead of what boto3 raises of S3's refusals."""
    try:
        yield
    except (ClientError, Boto3Error) as error:
        remedy = next((remedy for code, remedy in REMEDIES.items() if f"({code})" in str(error)), "try again")
        raise StorageError(f"{uri}: {' '.join(str(error).split())}: {remedy}") from error
