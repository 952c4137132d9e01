"""Puts the hosting image's name into the local account's registry.

The one mock of the demo: an image cannot be built without a docker engine, so the registry gets a manifest without
layers, and what would run in the container runs from .venv-hosting, which is made of the same requirements.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from local.account import Account

CONTAINER = Path(__file__).resolve().parents[1] / "model" / "container"


def publish_hosting_image(account: Account, name: str) -> str:
    """Returns the URI REGISTRY/<name>-hosting:<tag>, the tag being the hash of model/container's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in CONTAINER.iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    tag = digest.hexdigest()[:12]

    ecr = account.client("ecr")
    repository = ecr.create_repository(repositoryName=f"{name}-hosting")["repository"]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": 0,
            "digest": f"sha256:{digest.hexdigest()}",
        },
        "layers": [],
    }
    ecr.put_image(repositoryName=repository["repositoryName"], imageManifest=json.dumps(manifest), imageTag=tag)
    return f"{repository['repositoryUri']}:{tag}"
