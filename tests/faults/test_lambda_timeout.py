"""The function as AWS runs it, with a picture's host or an endpoint that never answers: it answers before Lambda does.

Lambda ends a function at its timeout with an error of its own, which tells a caller nothing.
"""

import json
import socket
from collections.abc import Iterator

import pytest

from bench.lambda_function import ARN, packaged
from local.account import account_environment
from local.pictures import PictureHost
from local.runtime import FunctionHost
from tests.colour_model import picture

pytestmark = pytest.mark.fault


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where a connection is taken, and nothing ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("who", "code"), [("picture", "fetch_timeout"), ("endpoint", "endpoint_timeout")], ids=["picture", "endpoint"]
)
def test_the_answer_comes_before_lambdas_own_timeout(who, code, silent, tmp_path):
    pictures = PictureHost(tmp_path)
    url = pictures.put("red.png", picture((255, 0, 0))).replace("localhost", "127.0.0.1")
    if who == "picture":
        url = f"https://127.0.0.1:{silent}/red.png"
    ports = (pictures.port, silent)
    host = FunctionHost(
        packaged(),
        "handler.lambda_handler",
        account_environment(f"http://127.0.0.1:{silent}")
        | {
            "ENDPOINT_NAME": "image-classifier",
            "SSL_CERT_FILE": str(pictures.ca_file),
            "PRIVATE_HOSTS": json.dumps([{"host": "127.0.0.1", "port": p, "cidr": "127.0.0.1/32"} for p in ports]),
        },
        timeout_seconds=2,
        memory_mb=512,
        max_environments=1,
        function_arn=ARN,
        state_dir=tmp_path,
    )
    try:
        for _ in range(2):  # cold and warm
            invocation = host.invoke(json.dumps({"url": url}).encode())
            assert invocation.function_error is None, invocation.payload
            answer = json.loads(invocation.payload)
            assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (504, code)
    finally:
        host.stop()
        pictures.stop()
