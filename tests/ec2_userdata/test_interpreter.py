"""Which pins this interpreter meets, and what happens where it does not."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("ec2_interpreter", PROJECT / "ec2_userdata" / "interpreter.py")
interpreter = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(interpreter)


def write(folder: Path, text: str, name: str = "requirements.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_project_environment_meets_what_the_box_requires():
    assert interpreter.unmet(PROJECT / "ec2_userdata" / "requirements.txt") == []


def test_pins_of_other_versions_and_of_included_files_are_unmet(tmp_path):
    boto3_version = metadata.version("boto3")
    write(tmp_path, "no-such-distribution==1\n", "more.txt")
    path = write(tmp_path, f"# why\n--no-binary :none:\n\nboto3=={boto3_version}  # met\nnumpy==0.0.1\n-r more.txt\n")
    assert interpreter.unmet(path) == ["numpy==0.0.1", "no-such-distribution==1"]


@pytest.mark.parametrize(
    ("found", "met"), [("2.14.1+cpu", True), ("2.14.1", True), ("2.14.10", False), ("2.14", False)]
)
def test_a_local_version_meets_its_public_one(tmp_path, monkeypatch, found, met):
    monkeypatch.setattr(interpreter.metadata, "version", lambda name: found)
    assert interpreter.unmet(write(tmp_path, "torch==2.14.1\n")) == ([] if met else ["torch==2.14.1"])


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "./wheel.whl"])
def test_a_line_that_is_no_pin_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match="no exact pin"):
        interpreter.unmet(write(tmp_path, line + "\n"))


def test_where_something_is_missing_the_script_starts_over_in_a_virtual_environment(tmp_path):
    """A local package stands for torch: a venv is really made, pip really installs, the script really starts over."""
    package = tmp_path / "package"
    package.mkdir()
    write(package, "", "boxed.py")
    project = '[project]\nname = "boxed"\nversion = "1"\n[tool.setuptools]\npy-modules = ["boxed"]\n'
    write(package, project, "pyproject.toml")
    requirements = write(tmp_path, "-r more.txt\nboxed==1\n")
    # pip only builds from source here, with the setuptools of this environment, so that nothing is downloaded.
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", wheels, package]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = wheels.iterdir()
    write(tmp_path, "boxed==1\n", "more.txt")
    lock = f"boxed==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    write(tmp_path, lock, "more.lock")
    script = write(
        tmp_path,
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(PROJECT / 'ec2_userdata')!r})\n"
        "import interpreter\n"
        "print('start', sys.argv[1:], flush=True)\n"
        f"interpreter.ensure(pathlib.Path({str(requirements)!r}), pathlib.Path('venv'))\n"
        "import boxed; print('in', sys.prefix)\n",
        "script.py",
    )
    environment = {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, script, "a b", "--c=1"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        "start ['a b', '--c=1']",
        "installing requirements.txt: boxed==1, boxed==1",
        "start ['a b', '--c=1']",
        f"in {tmp_path / 'venv'}",
    ], result.stderr
    # A later start, from the same interpreter as the first: what stands there is used as it is.
    again = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert again.stdout.splitlines()[-1] == f"in {tmp_path / 'venv'}", again.stderr
    assert "installing" not in again.stdout


def test_what_is_not_what_the_lock_of_an_included_file_says_is_not_installed(tmp_path, monkeypatch):
    write(tmp_path, "boxed==1\n", "more.txt")
    lock = write(tmp_path, "boxed==1\n", "more.lock")
    commands = []

    def run(command, check=False):
        commands.append(command[1:])
        if check:
            raise subprocess.CalledProcessError(1, command)  # as pip does where a hash differs

    monkeypatch.setattr(interpreter.subprocess, "run", run)
    monkeypatch.setattr(interpreter.venv, "create", lambda folder, with_pip: None)
    with pytest.raises(subprocess.CalledProcessError):
        interpreter.ensure(write(tmp_path, "-r more.txt\ntorch==0.0.1\n"), tmp_path / "venv")
    assert commands == [["-m", "pip", "install", "--no-input", "--quiet", "--require-hashes", "-r", lock]]
