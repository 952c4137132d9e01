"""Pinned pure-Python requirements as files to put into a package, installed once for each text of the file."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Of an installed distribution: what pip notes about this machine and this installation, and scripts with its paths.
LEFT_OUT_OF_DIST_INFO = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


class RequirementsError(Exception):
    """Requirements that cannot be packaged; the message names the line or file and the remedy."""


def installed_files(requirements: Path, cache: Path) -> dict[str, bytes]:
    """Installs a requirements file below `cache`, if this text of it is not there yet, and reads what it brought.

    Returns path below site-packages -> content, without bytecode and without what differs between machines.
    Raises RequirementsError where pip fails, where something installed is not pinned, or is not pure Python.
    """
    text = requirements.read_bytes()
    folder = cache / hashlib.sha256(text).hexdigest()[:16]
    if not folder.is_dir():
        _install(requirements, folder)
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or "__pycache__" in name.parts or name.parts[0] == "bin":
            continue
        if name.parts[0].endswith(".dist-info") and name.name in LEFT_OUT_OF_DIST_INFO:
            continue
        if path.suffix in {".so", ".pyd", ".dylib"}:
            raise RequirementsError(f"{requirements}: {name} is compiled for one machine; take a pure Python package")
        files[name.as_posix()] = path.read_bytes()
    return files


def _install(requirements: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="installing-") as scratch:
        part = Path(scratch, "site-packages")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        # The function's Python is another than this one, so only wheels for any machine.
        wheels = ["--only-binary", ":all:", "--platform", "any", "--no-compile", "--target", str(part)]
        result = subprocess.run(
            [*pip, *wheels, "-r", str(requirements)], stderr=subprocess.PIPE, text=True, check=False
        )
        if result.returncode != 0:
            raise RequirementsError(f"pip could not install {requirements}:\n{result.stderr.strip()}")
        unpinned = _distributions(part) - _pins(requirements)
        if unpinned:
            pins = ", ".join(f"{name}=={version}" for name, version in sorted(unpinned))
            raise RequirementsError(f"{requirements} leaves versions open, which makes builds differ: add {pins}")
        try:
            os.rename(part, folder)
        except OSError:  # another build was first
            if not folder.is_dir():
                raise
        shutil.rmtree(part, ignore_errors=True)


def _pins(requirements: Path) -> set[tuple[str, str]]:
    lines = (line.partition("#")[0].partition(";")[0].strip() for line in requirements.read_text().splitlines())
    return {(_normal(name), version.strip()) for name, pin, version in (line.partition("==") for line in lines) if pin}


def _distributions(folder: Path) -> set[tuple[str, str]]:
    stems = (path.name.removesuffix(".dist-info") for path in folder.glob("*.dist-info"))
    return {(_normal(name), version) for name, _, version in (stem.rpartition("-") for stem in stems)}


def _normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503), extras left out."""
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).strip().lower()
