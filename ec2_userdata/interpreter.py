"""A Python that has what training needs: this one where it does (a golden image), else one in a virtual environment."""

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

# torch's wheels on the package index carry gigabytes of CUDA; the same versions for a box without a GPU are here.
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def unmet(requirements: Path) -> list[str]:
    """The pins of a requirements file, and of those it includes with -r, that this interpreter does not meet.

    A local version (2.14.1+cpu) meets its public one. Raises ValueError for a line that is no exact pin.
    """
    missing = []
    for line in requirements.read_text().splitlines():
        line = line.partition(" #")[0].strip()
        if line.startswith("-r "):
            missing += unmet(requirements.parent / line[3:].strip())
        elif line and not line.startswith(("#", "--")):
            name, pinned, version = line.partition("==")
            if not pinned:
                raise ValueError(f"{requirements}: {line!r} is no exact pin; write name==version")
            if not _installed(name, version):
                missing.append(line)
    return missing


def ensure(requirements: Path, folder: Path) -> None:
    """Return where this interpreter meets the requirements; else start over in `folder`, a virtual environment.

    What `folder` lacks of them is installed there; one that an earlier start, or the image, left complete is used.
    """
    missing = unmet(requirements)
    if not missing:
        return
    python = folder.absolute() / "bin" / "python"
    if Path(sys.prefix) == folder.absolute():
        raise RuntimeError(f"{folder} lacks {', '.join(missing)} although pip installed {requirements}")
    if not python.exists() or subprocess.run([python, __file__, requirements]).returncode != 0:
        print(f"installing {requirements.name}: {', '.join(missing)}", flush=True)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--no-input", "--quiet"]
        for lock in _locks(requirements):
            subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
        subprocess.run([*pip, "--extra-index-url", CPU_WHEELS, "-r", requirements], check=True)
    os.execv(python, [str(python), *sys.argv])


def _locks(requirements: Path) -> list[Path]:
    """The locks beside the files that a requirements file includes, so that they are installed by their hash."""
    included = [line[3:].strip() for line in requirements.read_text().splitlines() if line.startswith("-r ")]
    locks = [(requirements.parent / name).with_suffix(".lock") for name in included]
    return [lock for lock in locks if lock.is_file()]


def _installed(name: str, version: str) -> bool:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return found == version or found.partition("+")[0] == version


if __name__ == "__main__":
    sys.exit(1 if unmet(Path(sys.argv[1])) else 0)
