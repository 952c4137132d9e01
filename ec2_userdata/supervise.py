"""Run run.py and see that nothing it learns is lost, and that it never runs past its cap.

    supervise.py --bucket B --dataset NAME --instance-id ID --kms-key-arn ARN --run-id ID --time-cap-seconds N -- ...

What follows `--` goes to model/train.py. Needs boto3 of any version, so that it can watch over the installation of
everything else. Works below the current directory; `checkpoints` there is kept in S3 below trainer/checkpoints/<run
id>/, and a box that has none begins with those. The seconds that earlier boxes spent travel with them.
Exit status: 75 at the cap, 1 where a spot notice was withdrawn, else that of run.py.
"""

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from checkpoints import Checkpoints
from instance_metadata import spot_notice

CAPPED, AGAIN = 75, 1
STARTED, RESTORED, FOLDER = Path("started"), Path("restored"), Path("checkpoints")
SPOT_SECONDS = 5.0
NOTE_SECONDS = 60.0  # how much of the clock a box that dies without a word can take with it
GRACE_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("bucket", "dataset", "instance-id", "kms-key-arn", "run-id"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--time-cap-seconds", type=float, required=True)
    parser.add_argument("training", nargs="*", help="arguments of model/train.py, after --")
    arguments = parser.parse_args()

    run = Run(arguments)
    signal.signal(signal.SIGTERM, _leave)  # a shutdown
    try:
        return run.watch()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        run.end()


class Run:
    """One start of run.py, with its checkpoints and its clock."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._instance, self._cap = arguments.instance_id, arguments.time_cap_seconds
        # Debian 12's boto3 does not read this variable by itself yet. Short patience: the cap waits behind a transfer.
        config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
        s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"), config=config)
        prefix = f"trainer/checkpoints/{arguments.run_id}/"
        self._checkpoints = Checkpoints(s3, arguments.bucket, prefix, arguments.kms_key_arn, FOLDER)
        self._noted = time.monotonic()
        self._said = ""
        self._restore()
        command = [sys.executable, str(Path(__file__).with_name("run.py")), "--bucket", arguments.bucket]
        command += ["--dataset", arguments.dataset, "--kms-key-arn", arguments.kms_key_arn, "--", *arguments.training]
        # A group of its own, so that all of it can be ended at once.
        self._process = subprocess.Popen(command, start_new_session=True) if self._left() > 0 else None

    def watch(self) -> int:
        """Until run.py ends, the cap is reached, or EC2 wants the instance back."""
        next_poll = 0.0
        while self._left() > 0:
            if (status := self._process.poll()) is not None:
                return status
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + SPOT_SECONDS
                if notice := self._spot_notice():
                    return self._yield_to(notice)
            self._sync(everything=time.monotonic() - self._noted > NOTE_SECONDS)
            time.sleep(min(1.0, max(0.0, self._left())))
        print(f"the cap of {self._cap:.0f} s is reached: training is ended", flush=True)
        return CAPPED

    def end(self) -> None:
        """End run.py and what it started, and bring what they left to S3."""
        if self._process is not None and self._process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(GRACE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._sync(everything=True)

    def _restore(self) -> None:
        """On a new box: the clock and the checkpoints of the one before it, if that one did not finish."""
        manifest = self._checkpoints.manifest
        if not STARTED.exists():
            before = manifest.get("elapsed_seconds", 0)
            if before and self._checkpoints.finished_by() == manifest.get("instance_id"):
                before = 0  # that run is over; this one was asked for anew, and has a cap of its own
            part = STARTED.with_suffix(".part")
            part.write_text(str(time.time() - before))
            os.replace(part, STARTED)
        if not RESTORED.exists():
            FOLDER.mkdir(exist_ok=True)
            if count := self._checkpoints.restore():
                print(f"goes on from {count} checkpoint files of {manifest.get('instance_id')}", flush=True)
            RESTORED.touch()

    def _elapsed(self) -> float:
        return time.time() - float(STARTED.read_text())

    def _left(self) -> float:
        return self._cap - self._elapsed()

    def _yield_to(self, notice: str) -> int:
        """The instance goes, the group keeps its capacity and starts another, which goes on from S3."""
        print(f"spot notice: {notice}; training stops here", flush=True)
        self.end()
        print("checkpoints are in S3; waiting for the end", flush=True)
        while self._left() > 0:
            if not self._spot_notice():
                print("the spot notice was withdrawn", flush=True)
                return AGAIN
            time.sleep(SPOT_SECONDS)
        return CAPPED

    def _spot_notice(self) -> str | None:
        try:
            return spot_notice()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._say_once(f"the instance metadata cannot be asked for a spot notice: {error!r}")
            return None

    def _sync(self, *, everything: bool) -> None:
        """An upload that fails is no reason to stop training: the next one makes up for it."""
        note = {"elapsed_seconds": round(self._elapsed(), 1), "instance_id": self._instance}
        try:
            if self._checkpoints.sync(note, everything=everything):
                self._noted = time.monotonic()
        except (Boto3Error, BotoCoreError, ClientError, OSError, sqlite3.Error) as error:
            self._say_once(f"checkpoints were not synced: {error!r}")

    def _say_once(self, text: str) -> None:
        if text != self._said:
            print(text, flush=True)
            self._said = text


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd repeats itself
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
