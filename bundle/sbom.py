"""Writes what is shipped, a CycloneDX list each: build/sbom/{lambda,trainer-code,hosting-image}.cdx.json.

    python -m bundle.sbom        # make sbom: after make package

The packages are those of the locks, with their hashes; the thing itself stands in metadata.component, an archive with
its own hash. The same bytes for the same locks and archives.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from bundle.archives import write_if_changed, zip_bytes
from bundle.packages import hosting_image_files

PROJECT = Path(__file__).resolve().parents[1]
CYCLONEDX = PROJECT / ".venv-supply" / "bin" / "cyclonedx-py"
# What is shipped -> the lock of the packages in it, or that it installs.
SHIPPED = {
    "lambda": "lambda/requirements.lock",
    "trainer-code": "model/requirements.lock",
    "hosting-image": "model/container/requirements.lock",
}


def main() -> int:
    build = PROJECT / "build"
    try:
        contents = {
            "lambda": (build / "lambda.zip").read_bytes(),
            "trainer-code": (build / "trainer-code.tar.gz").read_bytes(),
            "hosting-image": zip_bytes(hosting_image_files(PROJECT)),  # what an image is built of, and tagged with
        }
    except FileNotFoundError as error:
        print(f"sbom: no {error.filename}: run make package", file=sys.stderr)
        return 2
    for name, content in contents.items():
        bill = components(PROJECT / SHIPPED[name])
        bill["metadata"]["component"] = {
            "type": "container" if name == "hosting-image" else "application",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
        }
        bill["dependencies"].append({"ref": name, "dependsOn": [part["bom-ref"] for part in bill["components"]]})
        path = build / "sbom" / f"{name}.cdx.json"
        state = "written" if write_if_changed(path, (json.dumps(bill, indent=2) + "\n").encode()) else "unchanged"
        print(f"{path}  {len(bill['components'])} packages  {state}")
    return 0


def components(lock: Path) -> dict:
    """cyclonedx-py's own list of a lock, without time and serial number."""
    # What comes of it is more than it would validate here; the tests validate that.
    command = [str(CYCLONEDX), "requirements", "--no-validate", "--output-reproducible", "--of", "JSON", str(lock)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
