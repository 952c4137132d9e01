"""What goes into each package."""

from __future__ import annotations

from pathlib import Path

from bundle.requirements import installed_files

# The hosting image's own; neither training nor the notebook needs it.
NOT_FOR_TRAINING = "container"
CACHES = {"__pycache__", ".ipynb_checkpoints"}


def lambda_files(project: Path, cache: Path) -> dict[str, bytes]:
    """The function's modules and what lambda/requirements.lock names, all at the top, as Lambda imports them."""
    folder = project / "lambda"
    modules = {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}
    return installed_files(folder / "requirements.lock", cache) | modules


def trainer_files(project: Path) -> dict[str, bytes]:
    """model/ and what the EC2 box runs of ec2_userdata/."""
    files = {
        name: content for name, content in _tree(project, "model").items() if name.split("/")[1] != NOT_FOR_TRAINING
    }
    files |= {
        name: content for name, content in _tree(project, "ec2_userdata").items() if name.endswith((".py", ".txt"))
    }
    # At the top: there SageMaker's training image looks for what it must install, here by its hash.
    return files | {"requirements.txt": files["model/requirements.lock"]}


def hosting_image_files(project: Path) -> dict[str, bytes]:
    """The hosting image's build context with its test, below container/."""
    files = _tree(project, "model/container").items()
    return {name.removeprefix("model/"): content for name, content in files}


def _tree(project: Path, folder: str) -> dict[str, bytes]:
    """The files of a folder, archive name -> content, without caches, bytecode and hidden files."""
    files = {}
    for path in sorted((project / folder).rglob("*")):
        name = path.relative_to(project)
        if path.is_file() and path.suffix != ".pyc" and not any(p in CACHES or p[0] == "." for p in name.parts):
            files[name.as_posix()] = path.read_bytes()
    return files
