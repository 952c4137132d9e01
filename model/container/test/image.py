"""The hosting image's own test: what only a container engine can show. Needs docker or podman, and nothing but Python.

    python model/container/test/image.py IMAGE --archive model.tar.gz --picture picture.jpg

The container runs more tightly than SageMaker runs it: no network, a read-only root file system with a /tmp in memory,
no capability. In it, as another user than root, the archive must answer the picture; TERM must then end it with 0.
Exit status: 0, 1 where the image is not as it must be or the engine failed, 2 for a mistake in the call.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

STOP_SECONDS = 30


class Failed(Exception):
    """What is wrong with the image, in one line."""


class Engine:
    """docker, or podman, which takes the same commands."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints; raises Failed with the end of what it says."""
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            raise Failed(f"{self.program} {arguments[0]} ended with status {done.returncode}: {said[-1]}")
        return done.stdout.strip()

    def attempt(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [self.program, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def unpack(archive: Path, folder: Path) -> None:
    """As SageMaker does; the container's user, whoever it is, may read it."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def check(engine: Engine, image: str, archive: Path, picture: Path) -> None:
    """Raises Failed; prints what was seen."""
    megabytes = int(engine("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        model, shown = Path(scratch, "model"), Path(scratch, "picture")
        model.mkdir()
        unpack(archive, model)
        shutil.copyfile(picture, shown)
        shown.chmod(0o644)
        container = engine(
            "run", "--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", "--volume", f"{model}:/opt/ml/model:ro,z",
            "--volume", f"{shown}:/opt/ml/picture:ro,z", image, "serve",
        )  # fmt: skip
        try:
            seen = probe(engine, container)
            seconds = stop(engine, container)
        except Failed:
            log = engine.attempt("logs", "--tail", "50", container)
            print(log.stdout + log.stderr, end="", file=sys.stderr)
            raise
        finally:
            engine.attempt("rm", "--force", container)
    print(
        f"{image}: {megabytes:.0f} MB; user {seen['uid']}, no network, read-only root; "
        f"ready after {seen['ready_seconds']} s, {seen['logits']} logits; ended {seconds:.1f} s after TERM, status 0"
    )


def probe(engine: Engine, container: str) -> dict:
    program = Path(__file__).with_name("probe.py").read_text()
    return json.loads(engine("exec", "--interactive", container, "python", "-", stdin=program))


def stop(engine: Engine, container: str) -> float:
    """Seconds from TERM to the end. An engine that has to kill leaves the status 137."""
    began = time.monotonic()
    engine("stop", "-t", str(STOP_SECONDS), container)
    seconds = time.monotonic() - began
    if (status := engine("inspect", "--format", "{{.State.ExitCode}}", container)) != "0":
        raise Failed(f"TERM ended the container with status {status} after {seconds:.1f} s")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", help="as docker names it")
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="model.tar.gz to serve")
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE", help="JPEG or PNG to ask about")
    parser.add_argument("--engine", default="docker", metavar="PROGRAM", help="docker or podman (%(default)s)")
    options = parser.parse_args()
    for path in (options.archive, options.picture):
        if not os.path.isfile(path):
            parser.error(f"{path}: no such file")
    if shutil.which(options.engine) is None:
        parser.error(f"--engine {options.engine}: not on the PATH")
    try:
        check(Engine(options.engine), options.image, options.archive, options.picture)
    except (Failed, tarfile.TarError) as error:
        print(f"image test: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
