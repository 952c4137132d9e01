"""Boots the EC2 trainer's box on a laptop: does with its user-data below a folder what cloud-init and systemd do.

    python -m local.box --user-data FILE --root DIR --instance-id i-0123456789abcdef0

The account is the one that AWS_ENDPOINT_URL in the environment leads to, the instance metadata those that
AWS_EC2_METADATA_SERVICE_ENDPOINT does, where it is set. A folder that this instance has booted in before is booted
again: what its user-data wrote stands. The box's image is not modelled: its packages are taken to be there, and
`python3` is the interpreter that runs this, so nothing is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from local.instance_metadata import instance_metadata
from local.units import Machine, UnitError

MODELLED = {"packages", "write_files", "runcmd"}


class UserDataError(Exception):
    """User-data that cloud-init would not take, or that this boot does not model; the message is one line."""


def boot(
    user_data: str, *, root: Path, environment: Mapping[str, str], instance_id: str, metadata_url: str | None = None
) -> int:
    """Boots a box and returns, once it has ended, the exit status of the service that its user-data started.

    Args:
        user_data: the cloud-config document, decoded.
        root: stands for the box's `/`; afterwards it holds what the box wrote, its log included.
        environment: the account's AWS_* variables.
        instance_id: cloud-init writes and runs the user-data once an instance; a service it enabled starts every time.
        metadata_url: an instance metadata service; without one, one that knows nothing but the instance's id.

    Raises UserDataError, and UnitError for a unit that cannot be run as systemd would.
    """
    root = Path(root).resolve()
    config = parse(user_data)
    booted = root / "var/lib/cloud/data/instance-id"
    if not booted.exists() or booted.read_text() != instance_id:
        for file in config["write_files"]:
            _write(root, file)
        _write(root, {"path": "/var/lib/cloud/data/instance-id", "content": instance_id})
    services = [_enabled_service(command) for command in config["runcmd"]]
    with contextlib.ExitStack() as stack:
        metadata_url = metadata_url or stack.enter_context(instance_metadata({"instance-id": instance_id}))
        machine = Machine(
            root,
            {
                **environment,
                "AWS_EC2_METADATA_DISABLED": "false",
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url,
                "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            },
        )
        return max((machine.start(service) for service in services), key=abs)


def parse(user_data: str) -> dict:
    """The document of a #cloud-config, its modelled keys checked. Raises UserDataError."""
    if user_data.partition("\n")[0].strip() != "#cloud-config":
        raise UserDataError("user-data must begin with the line #cloud-config, else cloud-init takes it for no such")
    try:
        config = yaml.safe_load(user_data)
    except yaml.YAMLError as error:
        raise UserDataError(f"user-data is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserDataError("user-data must be a mapping")
    if unknown := sorted(set(config) - MODELLED):
        raise UserDataError(f"user-data has {unknown[0]!r}; known here: {', '.join(sorted(MODELLED))}")
    if not config.get("write_files") or not config.get("runcmd"):
        raise UserDataError("user-data must have write_files and runcmd")
    return config


def _write(root: Path, file: Mapping[str, str]) -> None:
    path = root / file["path"].lstrip("/")
    if not file["path"].startswith("/") or not path.resolve().is_relative_to(root):
        raise UserDataError(f"write_files path {file['path']!r} is not absolute, or leads out of the root")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file["content"])
    path.chmod(int(file.get("permissions", "0644"), 8))


def _enabled_service(command: list[str]) -> str:
    match command:
        case ["systemctl", "enable", "--now", service]:
            return service
    raise UserDataError(f"runcmd {command!r} is not modelled; known here: [systemctl, enable, --now, SERVICE]")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--user-data", type=Path, required=True, help="file with the decoded user-data")
    parser.add_argument("--root", type=Path, required=True, help="folder that stands for the box's /")
    parser.add_argument("--instance-id", required=True)
    arguments = parser.parse_args(argv)
    if "AWS_ENDPOINT_URL" not in os.environ:
        parser.error("AWS_ENDPOINT_URL is not set: a box on a laptop needs the address of the local account")
    try:
        return boot(
            arguments.user_data.read_text(),
            root=arguments.root,
            environment={name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            instance_id=arguments.instance_id,
            metadata_url=os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        )
    except (UserDataError, UnitError, OSError) as error:
        print(f"local.box: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
