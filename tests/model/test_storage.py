"""What S3 refuses is told with the place and with what helps against that very refusal."""

from __future__ import annotations

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from classifier.storage import StorageError, accessing


def refusal(code: str, words: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": words}}, "HeadObject")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (refusal("AccessDenied"), "use the notebook's role"),
        (refusal("403"), "use the notebook's role"),
        (refusal("NoSuchBucket"), "terraform output artifact_bucket"),
        (refusal("SlowDown"), "try again"),
        (S3UploadFailedError(f"Failed to upload 1.png: {refusal('AccessDenied')}"), "use the notebook's role"),
        # Neither a name nor a message is the answer's code.
        (S3UploadFailedError(f"Failed to upload NoSuchBucket/403.png: {refusal('SlowDown')}"), "try again"),
        (refusal("InternalError", "AccessDenied is not what happened"), "try again"),
    ],
)
def test_the_remedy_is_that_of_the_code(error, remedy):
    with pytest.raises(StorageError) as told, accessing("s3://pictures/1"):
        raise error
    assert str(told.value).startswith("s3://pictures/1: ") and str(told.value).endswith(remedy)
    assert "\n" not in str(told.value)
