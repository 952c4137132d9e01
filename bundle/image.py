"""Builds and tests the hosting image with docker or podman, and pushes it; or has CodeBuild do so in the account.

    python -m bundle.image --archive build/model/model.tar.gz                       # build and test; `make image`
    python -m bundle.image --archive FILE --push REGISTRY/REPOSITORY                # and push
    python -m bundle.image --archive FILE --codebuild PROJECT                       # the same, without docker

An image is tagged with a hash of model/container, and one that the repository has already is not built again. The last
line of stdout is image_uri=REGISTRY/REPOSITORY@sha256:..., for `terraform apply -var image_uri=...`; where nothing was
pushed, image_id=sha256:... Exit status: 0, 1 where a tool, the test or AWS failed, 2 for a mistake, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from bundle.archives import zip_bytes
from bundle.codebuild import build_in_account
from bundle.errors import Failed, Mistake
from bundle.packages import hosting_image_files
from bundle.registry import Repository, login_password

PROJECT = Path(__file__).resolve().parents[1]
LOCAL_NAME = "image-classifier-hosting"
ENGINE_ENVIRONMENT = {
    # SageMaker takes one image, and not the index that buildx makes of an image and its attestation.
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    # podman's own format drops the health check.
    "BUILDAH_FORMAT": "docker",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bundle.image", description=__doc__.partition("\n")[0])
    help_text = "model.tar.gz to test the image with, as train.py --archive writes it"
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help=help_text)
    help_text = "JPEG or PNG to test it with (a photograph that scikit-learn carries)"
    parser.add_argument("--picture", type=Path, default=photograph(), metavar="FILE", help=help_text)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--push", metavar="REPOSITORY", help="ECR repository: terraform output image_repository_url")
    way.add_argument("--codebuild", metavar="PROJECT", help="CodeBuild project: terraform output image_build_project")
    options = parser.parse_args(arguments)
    try:
        print(run(options))
    except Mistake as mistake:
        print(f"image: {mistake}", file=sys.stderr)
        return 2
    except (Failed, ClientError, BotoCoreError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def photograph() -> Path | None:
    """A JPEG of 640 x 427 pixels."""
    found = importlib.util.find_spec("sklearn")
    return found and Path(found.origin).with_name("datasets") / "images" / "flower.jpg"


def run(options: argparse.Namespace) -> str:
    """The last line of stdout."""
    engine = None if options.codebuild else next(filter(answers, ("docker", "podman")), None)
    if not (engine or options.codebuild):
        raise Mistake(
            "neither docker nor podman answers here: install or start one, or build in the account: "
            f"{os.path.relpath(sys.executable)} -m bundle.image --archive {options.archive} "
            '--codebuild "$(terraform -chdir=terraform output -raw image_build_project)"'
        )
    for flag, path in (("--archive", options.archive), ("--picture", options.picture)):
        if path is None or not path.is_file():
            raise Mistake(f"{flag} {path}: no such file: name one, make image ARCHIVE=FILE (model/train.py writes it)")
    files = hosting_image_files(PROJECT)
    tag = hashlib.sha256(zip_bytes(files)).hexdigest()[:12]
    if options.codebuild:
        test = {"model.tar.gz": options.archive.read_bytes(), "picture.jpg": options.picture.read_bytes()}
        source = files | test | {"tag": tag.encode()}
        uri = build_in_account(boto3.Session(), options.codebuild, tag, lambda: zip_bytes(source), report)
        return f"image_uri={uri}"
    if not options.push:
        return f"image_id={build(engine, f'{LOCAL_NAME}:{tag}', files, options)}"
    repository = Repository.parse(options.push)
    ecr = boto3.client("ecr", region_name=repository.region)
    if uri := repository.image_uri(ecr, tag):
        report(f"{repository.tagged(tag)} has been pushed before")
        return f"image_uri={uri}"
    image = repository.tagged(tag)
    build(engine, image, files, options)
    call([engine, "login", "--username", "AWS", "--password-stdin", repository.registry], stdin=login_password(ecr))
    call([engine, "push", image])
    if uri := repository.image_uri(ecr, tag):
        return f"image_uri={uri}"
    raise Failed(f"{repository.name} has no image tagged {tag} after the push")


def answers(engine: str) -> bool:
    """Whether there is such an engine; docker's command alone, without its daemon, is none."""
    command = [engine, "ps"]
    return bool(shutil.which(engine)) and not subprocess.run(command, capture_output=True, check=False).returncode


def build(engine: str, image: str, files: Mapping[str, bytes], options: argparse.Namespace) -> str:
    """Builds and tests an image; its id."""
    with tempfile.TemporaryDirectory() as scratch:
        # From what the tag is the hash of, and nothing else that lies in model/container.
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        call([engine, "build", "--platform", "linux/amd64", "--tag", image, f"{scratch}/container"])
        test = [f"{scratch}/container/test/image.py", image, "--archive", str(options.archive)]
        call([sys.executable, *test, "--picture", str(options.picture), "--engine", engine])
    return call([engine, "image", "inspect", "--format", "{{.Id}}", image], stdout=subprocess.PIPE).strip()


def call(command: list[str], stdin: str | None = None, stdout: int | None = None) -> str:
    """Runs a tool, which says itself what it does: on stderr, because stdout's last line is the result."""
    environment = os.environ | ENGINE_ENVIRONMENT
    done = subprocess.run(command, input=stdin, stdout=stdout or sys.stderr, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:2])} ended with status {done.returncode}")
    return done.stdout


def report(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
