"""The model archive: the files a server needs, each with its hash in a manifest, packed to the same bytes each time."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
# What inference.py imports; nothing of the training half travels.
SERVING_CODE = (
    "inference.py",
    "classifier/__init__.py",
    "classifier/mistake.py",
    "classifier/network.py",
    "classifier/preprocessing.py",
    "classifier/weights.py",
)
RECORDED_PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow", "simplejpeg")


def complete_model_folder(folder: Path, metrics: dict) -> dict:
    """Add the serving code and, last, manifest.json to a folder that holds the model; returns the manifest.

    manifest.json: {"files": {name: sha256}, "metrics", "versions", "git_commit"}.
    """
    shutil.rmtree(folder / "code", ignore_errors=True)
    for name in SERVING_CODE:
        target = folder / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / name, target)
    (folder / "manifest.json").unlink(missing_ok=True)
    manifest = {
        "files": {name: sha256((folder / name).read_bytes()) for name in _file_names(folder)},
        "metrics": metrics,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_atomically(folder / "manifest.json", _json_bytes(manifest))
    return manifest


def pack(folder: Path, archive: Path) -> dict:
    """Pack a completed model folder as `archive` (.tar.gz) and, last, write manifest.json beside it.

    The second manifest is the inner one with {"archive": {"sha256", "bytes"}}; it is returned. Its presence says that
    the archive is whole. Raises OSError where the files cannot be written.
    """
    outer = archive.with_name("manifest.json")
    archive.parent.mkdir(parents=True, exist_ok=True)
    # A manifest of an earlier archive must not vouch for a half-written new one.
    outer.unlink(missing_ok=True)
    data = _tar_gz(folder)
    write_atomically(archive, data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["archive"] = {"sha256": sha256(data), "bytes": len(data)}
    write_atomically(outer, _json_bytes(manifest))
    return manifest


def _tar_gz(folder: Path) -> bytes:
    """Names sorted; times, owners and modes fixed: equal content gives equal bytes."""
    buffer = BytesIO()
    with (
        # Level 1: weights hardly shrink, and take minutes to try at level 9.
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=1, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in _file_names(folder):
            data = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, BytesIO(data))
    return buffer.getvalue()


def _file_names(folder: Path) -> list[str]:
    """What belongs to a model, sorted; SageMaker's folder may hold other things."""
    top = [folder / name for name in ("manifest.json", "model.json", "model.onnx", "model.safetensors")]
    files = [path for path in (*top, *(folder / "code").rglob("*.py")) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write beside and rename: a reader sees the old content or the new, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
        os.replace(partial, path)
    except OSError as error:
        # Of a full disk the system does not say which file's it was.
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Make a folder to write to, and remove what processes that are gone left half-written in it.

    Raises OSError where it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".*.partial"):
        _, _, process = partial.stem.rpartition(".")
        if process.isdecimal() and not _is_another_running(int(process)):
            partial.unlink(missing_ok=True)


def _is_another_running(process: int) -> bool:
    """Whether there is such a process, apart from this one, which in a container often has its forerunner's number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # Somebody else's.
        pass
    return True


def sha256(data: bytes) -> str:
    """The digest in hex."""
    return hashlib.sha256(data).hexdigest()


def git_commit() -> str | None:
    """The commit of the training code: from $GIT_COMMIT, a file COMMIT beside model/ (a bundle has no .git), or git."""
    if commit := os.environ.get("GIT_COMMIT"):
        return commit
    if (noted := SOURCE.parent / "COMMIT").is_file():
        return noted.read_text().strip() or None
    command = ["git", "-C", str(SOURCE), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Of the packages that a model depends on, by name."""
    return {package: _version(package) for package in RECORDED_PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _json_bytes(value: dict) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
