"""The repository of the hosting image in ECR."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from bundle.errors import Mistake

_URL = re.compile(r"((\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?)/([a-z0-9][a-z0-9._/-]*)")


@dataclass(frozen=True)
class Repository:
    """A repository, as its URL says: registry (the host docker logs in to), account, region, name."""

    registry: str
    account: str
    region: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Repository:
        """Raises Mistake for what is not REGISTRY/NAME of ECR."""
        if not (match := _URL.fullmatch(url)):
            raise Mistake(f"{url}: not an ECR repository: take it from terraform output image_repository_url")
        return cls(*match.groups())

    def tagged(self, tag: str) -> str:
        return f"{self.registry}/{self.name}:{tag}"

    def image_uri(self, ecr: Any, tag: str) -> str | None:
        """The image under a tag, by its digest; None where there is none."""
        try:
            [image] = ecr.describe_images(
                registryId=self.account, repositoryName=self.name, imageIds=[{"imageTag": tag}]
            )["imageDetails"]
        except ecr.exceptions.ImageNotFoundException:
            return None
        return f"{self.registry}/{self.name}@{image['imageDigest']}"


def login_password(ecr: Any) -> str:
    """What `docker login` takes for the user AWS, for the next twelve hours."""
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    return base64.b64decode(token).decode().partition(":")[2]
