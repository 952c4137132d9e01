"""AWS's policy evaluation, offline: iam-simulate, a program of its own that Node runs and that is never shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

FOLDER = Path(__file__).with_name("node")


class SimulatorMissing(Exception):
    """Node or the simulator's package is not there; the message says what to do."""


class Request(TypedDict):
    """A request as AWS would see it; policies by the key of their document.

    endpoint: policy of the VPC endpoint that the request passes.
    checked: whether action, resource and condition keys must be such as AWS's reference lists them.
    """

    principal: str
    action: str
    resource: str
    account: str
    context: Mapping[str, str]
    checked: bool
    identity: list[str]
    boundary: list[str] | None
    resourcePolicy: str | None
    endpoint: str | None


def simulate(documents: Mapping[str, Any], requests: Sequence[Request]) -> list[bool]:
    """Whether each request is allowed.

    Raises SimulatorMissing, and ValueError for a request that AWS would not know: an action, a resource of another
    type, a condition key that the action does not have.
    """
    if not shutil.which("node"):
        raise SimulatorMissing("node is not on PATH: install Node.js 20 or newer, which the policy simulator runs on")
    if not (FOLDER / "node_modules").is_dir():
        raise SimulatorMissing(f"{FOLDER}/node_modules is missing: run npm ci --ignore-scripts in {FOLDER}")
    order = json.dumps({"documents": documents, "requests": requests})
    # The simulator knows no encryption context. Under the name of a key that it knows, the comparison is the same.
    order = order.replace("kms:EncryptionContext:aws:logs:arn", "kms:RequestAlias")
    done = subprocess.run(["node", "simulate.js"], cwd=FOLDER, input=order, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the policy simulator failed: {done.stderr}")
    results = json.loads(done.stdout)
    if unknown := [
        f"{request['action']} on {request['resource']}: {result}"
        for request, result in zip(requests, results, strict=True)
        if result.startswith("error")
    ]:
        raise ValueError("\n".join(unknown))
    return [result == "Allowed" for result in results]
