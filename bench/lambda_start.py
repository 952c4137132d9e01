"""What a cold start costs: the handler's import, its client included, beside the plainest client of boto3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.rounds import Seconds

ROOT = Path(__file__).resolve().parents[1]
# AWS_LAMBDA_FUNCTION_NAME lets the handler make its client while it is imported, as it does on Lambda.
ENVIRONMENT = {
    "PATH": os.defpath,
    "AWS_LAMBDA_FUNCTION_NAME": "image-classifier",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
PLAIN = "import boto3; boto3.client('sagemaker-runtime', region_name='us-east-1')"
HANDLER = f"import sys; sys.path.insert(0, {str(ROOT / 'lambda')!r}); import handler"
# On Lambda a package's folder cannot be written to: what comes in it, Powertools too, is compiled at each start.
PACKAGED = "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {!r}); import handler"
# The interpreter's own start is the same for both, and left out: it would hide the difference.
TIMED = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{work}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def seconds(work: str) -> Seconds:
    """What some lines of Python cost in a fresh interpreter."""
    command = [sys.executable, "-c", TIMED.format(work=work)]
    printed = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
    wall, cpu = map(float, printed.split())
    return Seconds(wall, cpu)


def in_turn(rounds: int, *works: str) -> list[list[Seconds]]:
    """Each work's seconds, one a round, every other round backwards, after a round that compiles what can be kept."""
    found: list[list[Seconds]] = [[] for _ in works]
    for number in range(rounds + 1):
        order = list(zip(works, found, strict=True))
        for work, kept in order if number % 2 == 0 else reversed(order):
            measured = seconds(work)
            if number:
                kept.append(measured)
    return found
