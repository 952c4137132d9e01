"""The account's CodeBuild: a project reads back as it was made and changed, a build leaves a stand-in for an image."""

import io
import zipfile
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from local.account import Account

PROJECT = {
    "source": {"type": "S3", "location": "sources/image/source.zip"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {
        "type": "LINUX_CONTAINER",
        "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
        "computeType": "BUILD_GENERAL1_SMALL",
    },
    "encryptionKey": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "concurrentBuildLimit": 1,
}


@pytest.fixture
def create(control_plane: Account, role_arns: dict[str, str]) -> Callable[..., str]:
    """Makes a project named like its argument; returns the name."""

    def make(name: str, **changed: object) -> str:
        settings = PROJECT | {"serviceRole": role_arns["sagemaker"]} | changed
        control_plane.client("codebuild").create_project(name=name, **settings)
        return name

    return make


def test_settings_are_read_back_and_changed(control_plane: Account, create: Callable[..., str]) -> None:
    client, name = control_plane.client("codebuild"), create("settings")

    def shown() -> dict[str, object]:
        [project] = client.batch_get_projects(names=[name])["projects"]
        return {key: project.get(key) for key in PROJECT}

    assert shown() == PROJECT
    client.update_project(name=name, concurrentBuildLimit=2, timeoutInMinutes=20)
    assert shown() == PROJECT | {"concurrentBuildLimit": 2}
    assert client.batch_get_projects(names=[name])["projects"][0]["timeoutInMinutes"] == 20
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.update_project(name="nobodys", timeoutInMinutes=20)


def test_a_project_is_deleted_by_name_or_arn(control_plane: Account, create: Callable[..., str]) -> None:
    client = control_plane.client("codebuild")
    create("by-name"), create("by-arn")
    [project] = client.batch_get_projects(names=["by-arn"])["projects"]
    for name in ("by-name", project["arn"]):
        client.delete_project(name=name)
    assert client.batch_get_projects(names=["by-name", "by-arn"])["projects"] == []


def test_a_build_takes_the_version_it_was_given_and_leaves_its_tag(
    control_plane: Account, create: Callable[..., str]
) -> None:
    ecr, s3 = control_plane.client("ecr"), control_plane.client("s3")
    url = ecr.create_repository(repositoryName="images", imageTagMutability="IMMUTABLE")["repository"]["repositoryUri"]
    s3.create_bucket(Bucket="sources")
    s3.put_bucket_versioning(Bucket="sources", VersioningConfiguration={"Status": "Enabled"})
    versions = []
    for tag in ("first", "second"):
        source = io.BytesIO()
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("tag", tag)
        put = s3.put_object(Bucket="sources", Key="image/source.zip", Body=source.getvalue())
        versions.append(put["VersionId"])
    variables = [{"name": "REPOSITORY_URL", "value": url}]
    name = create("build", environment=PROJECT["environment"] | {"environmentVariables": variables})
    client = control_plane.client("codebuild")

    client.start_build(projectName=name, sourceVersion=versions[0])
    client.start_build(projectName=name, sourceVersion=versions[0])
    assert [image["imageTags"] for image in ecr.describe_images(repositoryName="images")["imageDetails"]] == [["first"]]
    client.start_build(projectName=name)
    details = ecr.describe_images(repositoryName="images")["imageDetails"]
    assert sorted(image["imageTags"][0] for image in details) == ["first", "second"]
    assert len({image["imageDigest"] for image in details}) == 2
    with pytest.raises(ClientError, match="InvalidInputException"):
        client.start_build(projectName=name, sourceVersion="00000000-0000-0000-0000-000000000000")
