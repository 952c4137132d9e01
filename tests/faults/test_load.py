"""More requests than the reserved concurrency takes, sent whether the last ones were answered or not.

LOAD_SECONDS in the environment is how long, 60 by default; ten minutes are `LOAD_SECONDS=600 python -m pytest
tests/faults/test_load.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.lambda_function import packaged
from capacity import connection
from local import hosting
from local.account import REGION, Account, running_account
from tests.colour_model import model_files, pack, picture

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting"),
]

SECONDS = float(os.environ.get("LOAD_SECONDS", "60"))
RESERVED = 5  # of terraform/environments/reference.tfvars
# The endpoint's one worker takes a tenth of a second for a picture, so that a third of the load is too much.
PER_SECOND = 15.0
SLOW = b"""
import time
_predict_fn = predict_fn


def predict_fn(pictures, model):
    time.sleep(0.1)
    return _predict_fn(pictures, model)
"""
COLOURS = list(itertools.product(range(0, 256, 51), repeat=3))
NAME = "classifier"


@dataclass
class Seen:
    """What became of the requests. wrong: answers that are not those of the request's own picture."""

    outcomes: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: dict[str, list[int]] = field(default_factory=dict)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "account"


@pytest.fixture
def account(folder) -> Iterator[Account]:
    """An account with the function, its concurrency reserved, before an endpoint in service."""
    with running_account(folder) as account:
        files = model_files()
        archive = pack(folder / "model.tar.gz", files | {"code/inference.py": files["code/inference.py"] + SLOW})
        roles = {service: role(account, service) for service in ("lambda", "sagemaker")}
        s3, sagemaker, function = (account.client(service) for service in ("s3", "sagemaker", "lambda"))
        s3.create_bucket(Bucket="artifacts")
        s3.put_object(Bucket="artifacts", Key="model.tar.gz", Body=archive.read_bytes())
        image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
        container = {"Image": image, "ModelDataUrl": "s3://artifacts/model.tar.gz"}
        sagemaker.create_model(ModelName=NAME, ExecutionRoleArn=roles["sagemaker"], PrimaryContainer=container)
        variant = {"VariantName": "AllTraffic", "ModelName": NAME, "InstanceType": "ml.m5.xlarge"}
        sagemaker.create_endpoint_config(
            EndpointConfigName=NAME, ProductionVariants=[variant | {"InitialInstanceCount": 1}]
        )
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=NAME, WaiterConfig={"Delay": 1})
        function.create_function(
            FunctionName=NAME,
            Role=roles["lambda"],
            Runtime="python3.13",
            Handler="handler.lambda_handler",
            Timeout=30,
            Code={"ZipFile": packaged()},
            Environment={"Variables": {"ENDPOINT_NAME": NAME}},
        )
        function.put_function_concurrency(FunctionName=NAME, ReservedConcurrentExecutions=RESERVED)
        yield account


def role(account: Account, service: str) -> str:
    trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    return account.client("iam").create_role(RoleName=service, AssumeRolePolicyDocument=document)["Role"]["Arn"]


def invocation(account: Account, colour: tuple[int, int, int]) -> bytes:
    """The whole HTTP request of an Invoke with the picture of a colour."""
    url = f"{account.endpoint_url}/2015-03-31/functions/{NAME}/invocations"
    body = json.dumps({"url": account.put_picture("{}-{}-{}.png".format(*colour), picture(colour))}).encode()
    request = AWSRequest("POST", url, {"Host": urlsplit(url).netloc}, body)
    SigV4Auth(Credentials("testing", "testing"), "lambda", REGION).add_auth(request)
    lines = [f"POST {urlsplit(url).path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def is_of(colour: tuple[int, int, int], payload: bytes) -> bool:
    answer = json.loads(payload)
    return answer["statusCode"] == 200 and json.loads(answer["body"])[0] == pytest.approx(
        [value / 25.5 for value in colour], abs=0.15
    )


async def ask(account: Account, colour: tuple[int, int, int], request: bytes, seen: Seen) -> None:
    host = urlsplit(account.endpoint_url)
    try:
        async with asyncio.timeout(60):
            opened = await asyncio.open_connection(host.hostname, host.port)
            status, headers, payload = await connection.exchange(opened, request)
            await connection.close(opened)
    except (OSError, EOFError, ValueError) as error:
        seen.outcomes[repr(error)] += 1
        return
    seen.outcomes[status] += 1
    if status == 200 and not is_of(colour, payload):
        seen.wrong.append(f"{colour}: {payload!r}")
    if status == 429 and (headers["retry-after"], headers["x-amzn-errortype"]) != ("1", "TooManyRequestsException"):
        seen.wrong.append(f"{headers}")


async def offer(account: Account, folder: Path, seconds: float) -> Seen:
    """Poisson arrivals for so long, the memory of who works for them looked at once a second."""
    seen, gaps, waiting = Seen(), random.Random(7), []
    requests = [(colour, invocation(account, colour)) for colour in COLOURS]
    begin = due = time.monotonic()
    measured = begin + 5  # every environment has begun
    for colour, request in itertools.cycle(requests):
        due += gaps.expovariate(PER_SECOND)
        if due > begin + seconds:
            break
        await asyncio.sleep(due - time.monotonic())
        waiting.append(asyncio.create_task(ask(account, colour, request, seen)))
        if time.monotonic() > measured:
            measured += 1
            for name, figure in resident_bytes(folder).items():
                seen.resident.setdefault(name, []).append(figure)
    await asyncio.gather(*waiting)
    assert seen.outcomes.total() == len(waiting)
    return seen


def resident_bytes(folder: Path) -> dict[str, int]:
    """Resident memory by what the processes are: the function's environments, the model server, the account."""
    found = Counter()
    for record in (folder / "processes").glob("*.json"):
        kept = json.loads(record.read_text())
        for pid in Path(f"/proc/{kept['pid']}/task/{kept['pid']}/children").read_text().split():
            found[kept["name"]] += tree_bytes(pid)
    return found


def tree_bytes(pid: str) -> int:
    """Of a process and its children; whoever is supervised is in a record of its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    supervised = b"processes.py"
    return 1024 * int(status.partition("VmRSS:")[2].split()[0]) + sum(
        tree_bytes(child) for child in children if supervised not in Path(f"/proc/{child}/cmdline").read_bytes()
    )


def test_what_is_too_much_is_throttled_and_nothing_is_lost(account, folder):
    seen = asyncio.run(offer(account, folder, SECONDS))
    print(f"{SECONDS:.0f} s, {dict(seen.outcomes)}")
    assert seen.wrong == []
    assert set(seen.outcomes) == {200, 429}
    assert set(seen.resident) == {"account", "endpoint", NAME}
    for name, figures in seen.resident.items():
        first, last = (median(part) / 2**20 for part in (figures[: len(figures) // 4], figures[-10:]))
        print(f"{name}: {first:.1f} MiB, {last:.1f} MiB in the end")
        assert last < 1.02 * first + 2, name
    after = Seen()
    asyncio.run(ask(account, COLOURS[7], invocation(account, COLOURS[7]), after))
    assert (after.outcomes, after.wrong) == ({200: 1}, [])
