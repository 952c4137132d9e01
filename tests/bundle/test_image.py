"""python -m bundle.image, and the build in the account, with a stand-in for docker.

There may be no container engine where the tests run: the stand-in records what docker is asked and answers as docker
does, so that what is shown here is the script's own logic and nothing of the image.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from bundle import codebuild, image
from bundle.errors import Failed
from bundle.packages import hosting_image_files
from local.account import Account, running_account

PROJECT = Path(__file__).resolve().parents[2]
CONTAINER = PROJECT / "model" / "container"
BUILDSPEC = PROJECT / "terraform" / "modules" / "image" / "buildspec.yml"
BUCKET, KEY = "artifacts", "image/source.zip"

# `docker` and `aws`: each call is a line of calls.jsonl. What FAIL names fails; EXIT_CODE is the container's.
STAND_IN = """#!{python}
import json, os, pathlib, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
stdin = sys.stdin.read() if {{"--interactive", "--password-stdin"}} & set(arguments) else ""
call = {{"name": name, "arguments": arguments, "stdin": stdin}}
call["attestations"] = os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")
if arguments[0] == "build":
    context = pathlib.Path(arguments[-1])
    call["context"] = sorted(str(path.relative_to(context)) for path in context.rglob("*") if path.is_file())
if arguments[0] == "run":
    model = arguments[arguments.index("--volume") + 1].split(":")[0]
    call["model"] = {{path.name: oct(path.stat().st_mode) for path in pathlib.Path(model).iterdir()}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
if arguments[0] == os.environ.get("FAIL"):
    sys.exit("it went wrong")
if arguments[0] == "push" and "AWS_ENDPOINT_URL" in os.environ:
    import boto3
    repository, tag = arguments[1].partition("/")[2].split(":")
    manifest = {{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}}
    boto3.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))
asked = arguments[arguments.index("--format") + 1] if "--format" in arguments else arguments[0]
print({{
    "{{{{.Size}}}}": "412000000",
    "{{{{.Id}}}}": "sha256:" + "1" * 64,
    "{{{{.State.ExitCode}}}}": os.environ.get("EXIT_CODE", "0"),
    "run": "c0ffee",
    "exec": json.dumps({{"uid": 999, "ready_seconds": 1.9, "logits": 37}}),
}}.get(asked, ""))
"""


class StandIns:
    """A folder at the front of the PATH, and what its programs were asked."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("docker",)) -> None:
        self.folder, self.log = folder, folder / "calls.jsonl"
        for name in names:
            program = folder / name
            program.write_text(STAND_IN.format(python=sys.executable, calls=str(self.log)))
            program.chmod(0o755)

    def calls(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def verbs(self) -> list[str]:
        return [call["arguments"][0] for call in self.calls()]

    def call(self, verb: str) -> dict:
        [found] = [call for call in self.calls() if call["arguments"][0] == verb]
        return found


@pytest.fixture
def docker(tmp_path, monkeypatch) -> StandIns:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return StandIns(tmp_path / "bin")


@pytest.fixture
def archive(tmp_path) -> Path:
    """A model archive whose members only their owner may read."""
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("model.json")
        member.mode = 0o600
        tar.addfile(member, io.BytesIO())
    return path


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with running_account(data_plane=False) as account:
        yield account


@pytest.fixture
def repository(account, monkeypatch, request) -> str:
    """The URL of a repository of the test's own."""
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name).strip("-")
    made = account.client("ecr").create_repository(repositoryName=name, imageTagMutability="IMMUTABLE")
    return made["repository"]["repositoryUri"]


def last_line(capfd) -> str:
    return capfd.readouterr().out.splitlines()[-1]


def one_error_line(capfd) -> str:
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


# --- with docker -------------------------------------------------------------------------------------------------


def test_an_image_is_built_of_the_container_folder_and_tested_confined(docker, archive, capfd):
    assert image.main(["--archive", str(archive)]) == 0
    captured = capfd.readouterr()
    assert captured.out.splitlines()[-1] == f"image_id=sha256:{'1' * 64}"
    assert "412 MB; user 999" in captured.err

    build = docker.call("build")
    files = {path.relative_to(CONTAINER).as_posix() for path in CONTAINER.rglob("*.*") if path.suffix != ".pyc"}
    assert set(build["context"]) == files | {"Dockerfile"}
    assert build["arguments"][1:3] == ["--platform", "linux/amd64"] and build["attestations"] == "1"
    tag = build["arguments"][build["arguments"].index("--tag") + 1]
    assert re.fullmatch(r"image-classifier-hosting:[0-9a-f]{12}", tag)

    run = docker.call("run")["arguments"]
    assert run[-2:] == [tag, "serve"]
    pairs = set(itertools.pairwise(run))
    assert {("--network", "none"), ("--tmpfs", "/tmp"), ("--cap-drop", "ALL")} < pairs and "--read-only" in run
    volumes = [value for flag, value in pairs if flag == "--volume"]
    assert sorted(value.split(":", 1)[1] for value in volumes) == ["/opt/ml/model:ro,z", "/opt/ml/picture:ro,z"]
    assert docker.call("run")["model"] == {"model.json": "0o100644"}
    assert docker.call("exec")["stdin"] == (CONTAINER / "test" / "probe.py").read_text()
    assert docker.verbs() == ["ps", "build", "image", "run", "exec", "stop", "inspect", "rm", "image"]


def test_the_same_files_have_the_same_tag_and_others_another(tmp_path, docker, archive, monkeypatch):
    copy = tmp_path / "project"
    shutil.copytree(CONTAINER, copy / "model" / "container", ignore=shutil.ignore_patterns("__pycache__"))
    assert hosting_image_files(copy) == hosting_image_files(PROJECT)
    monkeypatch.setattr(image, "PROJECT", copy)
    tags = []
    for _ in range(2):
        assert image.main(["--archive", str(archive)]) == 0
        tags.append(docker.calls()[-1]["arguments"][-1])
        (copy / "model/container/serve.py").write_text("# another server\n")
    assert tags[0] != tags[1]


@pytest.mark.parametrize("step", ["build", "run", "exec", "stop"])
def test_what_fails_is_named_and_nothing_is_pushed_or_left(step, docker, repository, archive, capfd, monkeypatch):
    monkeypatch.setenv("FAIL", step)
    assert image.main(["--archive", str(archive), "--push", repository]) == 1
    assert "Traceback" not in (error := capfd.readouterr().err)
    assert f"docker {step} ended with status 1" in error
    assert "push" not in docker.verbs()
    assert ("rm" in docker.verbs()) == (step in ("exec", "stop"))


def test_a_container_that_had_to_be_killed_fails_the_image(docker, archive, capfd, monkeypatch):
    monkeypatch.setenv("EXIT_CODE", "137")
    assert image.main(["--archive", str(archive)]) == 1
    assert "TERM ended the container with status 137" in capfd.readouterr().err


def test_a_pushed_image_is_named_by_its_digest_and_not_built_again(docker, repository, account, archive, capfd):
    arguments = ["--archive", str(archive), "--push", repository]
    assert image.main(arguments) == 0
    [pushed] = account.client("ecr").describe_images(repositoryName=repository.partition("/")[2])["imageDetails"]
    assert last_line(capfd) == f"image_uri={repository}@{pushed['imageDigest']}"
    login = docker.call("login")
    assert login["arguments"][-1] == repository.partition("/")[0]
    assert login["stdin"] and login["stdin"] not in " ".join(login["arguments"])
    assert docker.verbs()[-2:] == ["login", "push"]

    before = docker.verbs().count("build")
    assert image.main(arguments) == 0
    assert last_line(capfd) == f"image_uri={repository}@{pushed['imageDigest']}"
    assert docker.verbs().count("build") == before == docker.verbs().count("push") == 1


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command_alone", [False, True])
def test_without_an_engine_the_way_through_the_account_is_named(command_alone, archive, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    if command_alone:  # what is installed of docker is its command, and no daemon runs
        StandIns(tmp_path)
        monkeypatch.setenv("FAIL", "ps")
    assert image.main(["--archive", str(archive)]) == 2
    command = f'-m bundle.image --archive {archive} --codebuild "$(terraform -chdir=terraform output -raw '
    assert f'{command}image_build_project)"' in one_error_line(capfd)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--archive", "/no/model.tar.gz"], "--archive /no/model.tar.gz: no such file"),
        (["--archive", "{archive}", "--picture", "/no/picture.jpg"], "--picture /no/picture.jpg: no such file"),
        (["--archive", "{archive}", "--push", "docker.io/me/image"], "docker.io/me/image: not an ECR repository"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, docker, archive, capfd):
    assert image.main([argument.format(archive=archive) for argument in arguments]) == 2
    assert said in one_error_line(capfd)
    assert set(docker.verbs()) <= {"ps"}


# --- in the account ----------------------------------------------------------------------------------------------


@pytest.fixture
def project(account, repository) -> str:
    """A project as Terraform makes it, beside the test's repository, and a versioned bucket."""
    s3 = account.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    name = repository.rpartition("/")[2]
    account.client("codebuild").create_project(
        name=name,
        source={"type": "S3", "location": f"{BUCKET}/{KEY}", "buildspec": BUILDSPEC.read_text()},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
            "computeType": "BUILD_GENERAL1_SMALL",
            "environmentVariables": [{"name": "REPOSITORY_URL", "value": repository}],
        },
        serviceRole="arn:aws:iam::123456789012:role/builder",
    )
    return name


def test_the_build_in_the_account_takes_the_source_once_and_names_a_digest(
    account, project, repository, archive, capfd, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no engine
    for _ in range(2):
        assert image.main(["--archive", str(archive), "--codebuild", project]) == 0
        assert re.fullmatch(rf"image_uri={re.escape(repository)}@sha256:[0-9a-f]{{64}}", last_line(capfd))
    s3 = account.client("s3")
    [version] = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert version["Key"] == KEY
    [build] = account.client("codebuild").batch_get_builds(
        ids=account.client("codebuild").list_builds_for_project(projectName=project)["ids"]
    )["builds"]
    assert build["sourceVersion"] == version["VersionId"]

    with zipfile.ZipFile(io.BytesIO(s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read())) as source:
        assert source.read("model.tar.gz") == archive.read_bytes()
        [stored] = account.client("ecr").describe_images(repositoryName=project)["imageDetails"]
        assert stored["imageTags"] == [source.read("tag").decode()]
        run_the_buildspec(source, tmp_path)


def run_the_buildspec(source: zipfile.ZipFile, tmp_path: Path) -> None:
    """The commands of a build, by the shell that it has, in its source's folder; docker and aws are stand-ins."""
    commands = "\n".join(yaml.safe_load(BUILDSPEC.read_text())["phases"]["build"]["commands"])
    for number, fails in enumerate(("", "exec")):
        folder = tmp_path / f"build-{number}"
        source.extractall(folder)
        (folder / "bin").mkdir()
        programs = StandIns(folder / "bin", ("docker", "aws"))
        done = subprocess.run(
            ["/bin/bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=folder,
            env={
                "PATH": f"{folder / 'bin'}:{os.path.dirname(sys.executable)}:/usr/bin:/bin",
                "FAIL": fails,
                "REPOSITORY_URL": "123456789012.dkr.ecr.us-east-1.amazonaws.com/pictures-hosting",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == (fails == ""), done.stderr
        image_name = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/pictures-hosting:{source.read('tag').decode()}"
        pushes = [call["arguments"] for call in programs.calls() if call["arguments"][0] == "push"]
        assert pushes == ([["push", image_name]] if not fails else [])


def test_a_project_that_is_not_there_is_a_mistake(account, archive, capfd, monkeypatch):
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    assert image.main(["--archive", str(archive), "--codebuild", "nobodys"]) == 2
    assert "--codebuild nobodys: no such project in us-east-1: take its name from" in one_error_line(capfd)


def test_a_build_that_fails_says_where_and_why(monkeypatch):
    monkeypatch.setattr(codebuild, "POLL_SECONDS", 0)
    client = boto3.client("codebuild", region_name="us-east-1")
    running = {"id": "p:1", "buildStatus": "IN_PROGRESS", "currentPhase": "BUILD"}
    context = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": "Error while executing command: docker build"}
    phases = [
        {"phaseType": "INSTALL", "phaseStatus": "SUCCEEDED"},
        {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [context]},
    ]
    failed = running | {"buildStatus": "FAILED", "currentPhase": "COMPLETED", "phases": phases}
    said = []
    with Stubber(client) as stubber:
        for build in (running, running, failed):
            stubber.add_response("batch_get_builds", {"builds": [build]}, {"ids": ["p:1"]})
        with pytest.raises(Failed, match=r"p:1: FAILED in BUILD: Error while executing command: docker build"):
            codebuild.follow(client, "p:1", said.append)
    assert said == ["build p:1: BUILD", "build p:1: COMPLETED"]


# --- the folder itself -------------------------------------------------------------------------------------------


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[\w+\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE))


def test_the_lock_has_each_requirement_as_pinned_with_hashes():
    required, locked = pins(CONTAINER / "requirements.txt"), pins(CONTAINER / "requirements.lock")
    assert required and required.items() <= locked.items(), "run the command at the head of requirements.lock"
    entries = re.split(r"\n(?=[a-z])", (CONTAINER / "requirements.lock").read_text().partition("\n\n")[2])
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)


def test_the_image_takes_every_module_of_the_server_and_a_base_by_its_digest():
    dockerfile = (CONTAINER / "Dockerfile").read_text()
    [base] = re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
    assert re.search(r":3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", base)
    assert "COPY *.py /opt/serving/" in dockerfile and (CONTAINER / "serve.py").is_file()
    assert re.search(r"^USER (?!root|0)\w+$", dockerfile, re.MULTILINE)
