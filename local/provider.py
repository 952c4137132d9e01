"""Initialises terraform/, from the provider registry or, where that cannot be reached, from a mirror on this machine.

    python -m local.provider

A mirror is an unpacked tree HOST/NAMESPACE/TYPE/VERSION/OS_ARCH, as `terraform providers mirror` and unzip make it. It
is looked for below the usual system prefixes and linked as terraform/terraform.d/plugins, where every later terraform
command finds it by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TERRAFORM_DIR = Path(__file__).resolve().parents[1] / "terraform"
REGISTRY = "registry.terraform.io"
PROVIDER = Path(REGISTRY, "hashicorp", "aws")
PREFIXES = ("/opt", "/usr/local", "/usr/share", "/usr/lib", "/var/lib", "/srv")
DEPTH = 4


def main() -> int:
    direct = _init()
    if direct.returncode == 0:
        return 0
    for mirror in _mirrors():
        link = TERRAFORM_DIR / "terraform.d" / "plugins"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(mirror)
        if _init().returncode == 0:
            print(f"terraform: provider registry out of reach, using the mirror {mirror}")
            return 0
        link.unlink()
    print(direct.stderr, file=sys.stderr)
    print(
        "terraform init failed and no provider mirror was found. Make one on a connected machine: in terraform/, "
        "`terraform providers mirror DIR`, unzip each archive into HOST/NAMESPACE/TYPE/VERSION/OS_ARCH/, and put DIR "
        "at terraform/terraform.d/plugins here.",
        file=sys.stderr,
    )
    return 1


def _init() -> subprocess.CompletedProcess[str]:
    command = ["terraform", "init", "-input=false", "-lockfile=readonly", "-no-color"]
    try:
        # Not -chdir: terraform looks for terraform.d/ in the folder it is started in.
        return subprocess.run(command, cwd=TERRAFORM_DIR, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit("terraform is not on PATH: install Terraform 1.9 or newer")


def _mirrors() -> Iterator[Path]:
    """Yields each folder that holds the AWS provider as a mirror does."""
    for prefix in PREFIXES:
        for folder, names, _ in os.walk(prefix):
            if REGISTRY in names and (Path(folder) / PROVIDER).is_dir():
                yield Path(folder)
            if len(Path(folder).relative_to(prefix).parts) >= DEPTH:
                names.clear()


if __name__ == "__main__":
    sys.exit(main())
