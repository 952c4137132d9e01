"""The request to measure with: a picture for a model server on any address, signed where it goes to an endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import numpy as np
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from capacity.errors import UserError

CONTENT_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
ENDPOINT_PATH = re.compile(r"/endpoints/[^/]+/invocations")
AWS_HOST = re.compile(r"runtime\.sagemaker(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
LOCAL_REGION = "us-east-1"
PICTURE_SIZE = 500, 375


@dataclass(frozen=True)
class Invocation:
    """One request that is sent again and again. region: of an endpoint, whose requests are signed; else None."""

    url: str
    content_type: str
    body: bytes
    region: str | None
    session: Session

    @property
    def host(self) -> str:
        return self._parts.hostname

    @property
    def tls(self) -> bool:
        return self._parts.scheme == "https"

    @property
    def port(self) -> int:
        return self._parts.port or (443 if self.tls else 80)

    def encode(self) -> bytes:
        """The request's bytes, signed now. Raises UserError where there are no credentials to sign with."""
        headers = {"Host": self._parts.netloc, "Accept": "application/json", "Content-Type": self.content_type}
        if self.region:
            headers = self._signed(headers)
        headers["Content-Length"] = str(len(self.body))
        lines = [f"POST {self._parts.path or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    def _signed(self, headers: dict[str, str]) -> dict[str, str]:
        try:
            credentials = self.session.get_credentials()
            if credentials is None:
                raise UserError(
                    f"--url {self.url}: no AWS credentials to sign with: run `aws configure` or `aws sso login`"
                )
            request = AWSRequest("POST", self.url, headers, self.body)
            SigV4Auth(credentials.get_frozen_credentials(), "sagemaker", self.region).add_auth(request)
        except BotoCoreError as error:
            raise UserError(f"--url {self.url}: cannot be signed for: {error}") from None
        return dict(request.headers.items())


def read(url: str, picture: Path | None = None) -> Invocation:
    """The request for a URL and a picture. Raises UserError for a URL that is none and for a file that is no picture.

    Without a picture one is made that is as hard to decode as a photograph of PICTURE_SIZE. What goes to
    /endpoints/NAME/invocations is signed, on AWS or on a local account.
    """
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or not url.isascii()
    except ValueError:
        wrong = True
    if wrong or parts.query or parts.username or any(character.isspace() for character in url):
        raise UserError(
            f"--url {url}: give http(s)://HOST[:PORT]/invocations, or "
            "https://runtime.sagemaker.REGION.amazonaws.com/endpoints/NAME/invocations"
        )
    body = _made() if picture is None else _bytes_of(picture)
    content_type = next((name for magic, name in CONTENT_TYPES.items() if body.startswith(magic)), None)
    if content_type is None:
        raise UserError(f"--picture {picture}: neither a JPEG nor a PNG: give a picture that the model reads")
    session = Session()
    region = None
    if ENDPOINT_PATH.fullmatch(parts.path):
        aws = AWS_HOST.fullmatch(parts.hostname)
        region = aws[1] if aws else session.get_config_variable("region") or LOCAL_REGION
    return Invocation(url, content_type, body, region, session)


def _bytes_of(picture: Path) -> bytes:
    try:
        return picture.read_bytes()
    except OSError as error:
        raise UserError(f"--picture {picture}: cannot be read: {error.strerror}") from None


def _made() -> bytes:
    from bench.pictures import photograph  # Pillow, which a picture of the user's own does not need

    return photograph(*PICTURE_SIZE, np.random.default_rng(0))
