"""python -m bundle: the same bytes everywhere, only what is needed, and nothing twice."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.archives import tar_gz_bytes, write_if_changed, zip_bytes

PROJECT = Path(__file__).resolve().parents[2]
NAMES = st.from_regex(r"[a-z0-9_]{1,12}(/[a-z0-9_]{1,12}){0,2}\.py", fullmatch=True)
KEPT_OF_DIST_INFO = ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE")
FILES = st.dictionaries(NAMES, st.binary(max_size=300) | st.just(bytes(range(256)) * 600), max_size=6)


@settings(max_examples=50, deadline=None)
@given(files=FILES)
def test_archives_hold_what_they_were_given_in_one_order(files):
    backwards = dict(reversed(files.items()))
    assert zip_bytes(files) == zip_bytes(backwards)
    assert tar_gz_bytes(files) == tar_gz_bytes(backwards)
    with zipfile.ZipFile(io.BytesIO(zip_bytes(files))) as archive:
        assert archive.testzip() is None
        assert [(name, archive.read(name)) for name in archive.namelist()] == sorted(files.items())
        assert {entry.external_attr >> 16 for entry in archive.infolist()} <= {0o644}
    with tarfile.open(fileobj=io.BytesIO(tar_gz_bytes(files)), mode="r:gz") as archive:
        members = archive.getmembers()
        assert [(member.name, archive.extractfile(member).read()) for member in members] == sorted(files.items())
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} <= {(0, 0, 0, 0o644)}


def test_gzip_itself_takes_the_stored_archive(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_gz_bytes({"a": os.urandom(200_000)}))
    assert subprocess.run(["gzip", "-t", path], capture_output=True, check=False).returncode == 0


def test_what_is_unchanged_is_not_rewritten(tmp_path):
    path = tmp_path / "build" / "a.zip"
    assert write_if_changed(path, b"one") is True
    os.utime(path, (1, 1))
    assert write_if_changed(path, b"one") is False
    assert path.stat().st_mtime == 1
    assert write_if_changed(path, b"two") is True
    assert [entry.name for entry in path.parent.iterdir()] == ["a.zip"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder of wheels for pip to install from, in place of the index: two pure ones and a compiled one."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "pure_one", "1.0", requires="pure-two")
    write_wheel(folder, "pure_two", "2.0")
    write_wheel(folder, "compiled", "3.0", extra={"compiled/fast.so": b"\x7fELF"})
    return folder


def write_wheel(
    folder: Path, name: str, version: str, requires: str = "", extra: dict[str, bytes] | None = None
) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += requires and f"Requires-Dist: {requires}\n"
    files = {
        f"{name}/__init__.py": b"value = 1\n",
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:value\n".encode(),
        f"{info}/licenses/LICENSE": b"free\n",
        **(extra or {}),
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(zip_bytes(files | {f"{info}/RECORD": record.encode()}))


def lock(wheels: Path, *names: str) -> str:
    """The text of a lock that has these wheels."""
    lines = []
    for path in (next(wheels.glob(f"{name}-*.whl")) for name in names):
        name, version, *_ = path.name.split("-")
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    return "".join(lines)


def make_project(folder: Path, requirements: str) -> Path:
    """The real model/ and ec2_userdata/ beside a small lambda/."""
    for name in ("model", "ec2_userdata"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lambda").mkdir()
    (folder / "lambda/handler.py").write_text("def lambda_handler(event, context): ...\n")
    (folder / "lambda/requirements.lock").write_text(requirements)
    return folder


def bundle(project: Path, wheels: Path | None) -> subprocess.CompletedProcess[str]:
    source = {"PIP_FIND_LINKS": str(wheels)} if wheels else {}
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **source}
    command = [sys.executable, "-m", "bundle", "--project", project]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def test_two_builds_on_two_paths_are_equal_and_the_second_installs_nothing(tmp_path, wheels):
    one = make_project(tmp_path / "one", lock(wheels, "pure_one", "pure_two"))
    other = make_project(tmp_path / "elsewhere" / "deeper" / "two", lock(wheels, "pure_one", "pure_two"))
    # What differs between two checkouts: times, modes, bytecode, hidden files.
    for path in other.rglob("*"):
        os.utime(path, (10**9, 10**9))
    (other / "model/train.py").chmod(0o755)
    (other / "model/classifier/__pycache__").mkdir()
    (other / "model/classifier/__pycache__/data.cpython-311.pyc").write_bytes(b"bytecode")
    (other / "model/.notes").write_text("mine")
    for project in (one, other):
        result = bundle(project, wheels)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("written") == 2
    for name in ("lambda.zip", "trainer-code.tar.gz"):
        assert (one / "build" / name).read_bytes() == (other / "build" / name).read_bytes()

    again = bundle(one, None)  # pip has nowhere to install from now
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("unchanged") == 2

    with zipfile.ZipFile(one / "build/lambda.zip") as archive:
        assert set(archive.namelist()) == {
            "handler.py",
            "pure_one/__init__.py",
            "pure_two/__init__.py",
            *(f"pure_one-1.0.dist-info/{name}" for name in KEPT_OF_DIST_INFO),
            *(f"pure_two-2.0.dist-info/{name}" for name in KEPT_OF_DIST_INFO),
        }


def test_this_project_on_another_path_is_the_same_packages(tmp_path):
    """What `make package` wrote here, from a copy elsewhere whose files nobody else may read."""
    build = PROJECT / "build"
    copy = tmp_path / "deeper" / "copy"
    for name in ("model", "ec2_userdata", "lambda"):
        shutil.copytree(PROJECT / name, copy / name, copy_function=shutil.copyfile)
    # The function's requirements, so that nothing is downloaded; their files are packed anew.
    shutil.copytree(build / "lambda-requirements", copy / "build" / "lambda-requirements")
    for path in copy.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    result = bundle(copy, None)
    assert result.returncode == 0, result.stderr
    for name in ("lambda.zip", "trainer-code.tar.gz"):
        assert (copy / "build" / name).read_bytes() == (build / name).read_bytes()


def test_a_lock_that_is_not_all_of_what_is_installed_is_refused(tmp_path, wheels):
    """A requirement of a requirement left out, a version or a hash left out, a hash of something else."""
    one, two = lock(wheels, "pure_one"), lock(wheels, "pure_two")
    for number, text in enumerate((one, one + "pure_two==2.0\n", one + "pure_two\n", one + two.replace("2.0", "9.9"))):
        refused(make_project(tmp_path / str(number), text), wheels, "pip could not install")
    refused(make_project(tmp_path / "other", two[:-9] + "00000000\n"), wheels, "DO NOT MATCH THE HASHES")


def test_a_wheel_that_is_compiled_for_one_machine_is_refused(tmp_path, wheels):
    project = make_project(tmp_path / "project", lock(wheels, "compiled"))
    refused(project, wheels, "compiled/fast.so is compiled for one machine")


def refused(project: Path, wheels: Path, said: str) -> None:
    result = bundle(project, wheels)
    assert result.returncode == 2
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not (project / "build/lambda.zip").exists()


def test_the_trainer_code_holds_what_the_box_and_the_notebook_run_and_nothing_else(tmp_path, wheels):
    project = make_project(tmp_path / "project", lock(wheels, "pure_two"))
    assert bundle(project, wheels).returncode == 0
    with tarfile.open(project / "build/trainer-code.tar.gz") as archive:
        names = set(archive.getnames())
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert {
        "ec2_userdata/run.py",
        "ec2_userdata/requirements.txt",
        "model/requirements.txt",
        "model/submit.py",
    } <= names
    expected = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "model/classifier").rglob("*.py")}
    assert expected and expected <= names
    assert not [name for name in names if "container" in name or name.endswith((".tftpl", ".md", ".pyc"))]
    assert (tmp_path / "unpacked/requirements.txt").read_text() == (PROJECT / "model/requirements.lock").read_text()
    # The unpacked code starts by itself, away from the checkout.
    script = tmp_path / "unpacked/model/train.py"
    result = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0 and "--archive" in result.stdout


def test_the_lambda_package_of_this_project_imports(tmp_path):
    """Of what is built here, where it is built: `make package` runs before the tests."""
    package = PROJECT / "build" / "lambda.zip"
    if not package.is_file():
        pytest.skip("build/lambda.zip is not built; run make package")
    program = "import sys; sys.path.insert(0, sys.argv[1]); import aws_lambda_powertools as p; print(p.__file__)"
    result = subprocess.run(
        [sys.executable, "-I", "-c", program, package], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(package))
