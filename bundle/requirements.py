"""Locked pure-Python requirements as files to put into a package, installed once for each text of the lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Of an installed distribution: what pip notes about this machine and this installation, and scripts with its paths.
LEFT_OUT_OF_DIST_INFO = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


class RequirementsError(Exception):
    """Requirements that cannot be packaged; the message names the line or file and the remedy."""


def installed_files(lock: Path, cache: Path) -> dict[str, bytes]:
    """Installs a lock below `cache`, if this text of it is not there yet, and reads what it brought.

    Returns path below site-packages -> content, without bytecode and without what differs between machines.
    Raises RequirementsError where pip fails, as it does where a version or a hash is missing, or where something
    installed is not pure Python.
    """
    text = lock.read_bytes()
    folder = cache / hashlib.sha256(text).hexdigest()[:16]
    if not folder.is_dir():
        _install(lock, folder)
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or "__pycache__" in name.parts or name.parts[0] == "bin":
            continue
        if name.parts[0].endswith(".dist-info") and name.name in LEFT_OUT_OF_DIST_INFO:
            continue
        if path.suffix in {".so", ".pyd", ".dylib"}:
            raise RequirementsError(f"{lock}: {name} is compiled for one machine; take a pure Python package")
        files[name.as_posix()] = path.read_bytes()
    return files


def _install(lock: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="installing-") as scratch:
        part = Path(scratch, "site-packages")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        # The function's Python is another than this one, so only wheels for any machine.
        wheels = ["--only-binary", ":all:", "--platform", "any", "--no-compile", "--target", str(part)]
        command = [*pip, *wheels, "--require-hashes", "-r", str(lock)]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            raise RequirementsError(
                f"pip could not install {lock} (after a change: make lock):\n{result.stderr.strip()}"
            )
        try:
            os.rename(part, folder)
        except OSError:  # another build was first
            if not folder.is_dir():
                raise
        shutil.rmtree(part, ignore_errors=True)
