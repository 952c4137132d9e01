"""Writes build/lambda.zip and build/trainer-code.tar.gz, which terraform apply uploads.

    python -m bundle [--project DIR] [--build DIR]

Rewrites neither where nothing changed; downloads the function's requirements once for each text of their lock.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from bundle.archives import tar_gz_bytes, write_if_changed, zip_bytes
from bundle.packages import lambda_files, trainer_files
from bundle.requirements import RequirementsError

PROJECT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bundle", description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=PROJECT, help="the project's folder (default: this one)")
    parser.add_argument("--build", type=Path, help="where to write (default: build/ in the project)")
    arguments = parser.parse_args(argv)
    build = arguments.build or arguments.project / "build"
    try:
        packages = {
            "lambda.zip": zip_bytes(lambda_files(arguments.project, build / "lambda-requirements")),
            "trainer-code.tar.gz": tar_gz_bytes(trainer_files(arguments.project)),
        }
    except (RequirementsError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    for name, content in packages.items():
        state = "written" if write_if_changed(build / name, content) else "unchanged"
        print(f"{build / name}  {len(content):,} bytes  sha256 {hashlib.sha256(content).hexdigest()[:12]}  {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
