"""The most memory that a command and everything it starts held at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

INTERVAL_SECONDS = 0.1


def peak_bytes(command: Sequence[str | os.PathLike], **keywords: object) -> int:
    """Run the command to its end; returns the highest of the sums of its processes' proportional set sizes.

    Pages that processes share count once. Raises CalledProcessError where the command fails. Source: Linux's
    /proc/PID/smaps_rollup.
    """
    process = subprocess.Popen(command, start_new_session=True, **keywords)
    highest = 0
    try:
        while process.poll() is None:
            highest = max(highest, sum(map(proportional_bytes, _session(process.pid))))
            time.sleep(INTERVAL_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return highest


def _session(leader: int) -> list[int]:
    """The processes of a session, those included whose parent has ended."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The fields after the name, which may hold anything, even brackets: state, parent, group, session.
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        if session == leader:
            members.append(int(entry.name))
    return members


def proportional_bytes(pid: int) -> int:
    """A process's memory, of pages it shares its part; 0 where it has ended. Source: /proc/PID/smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # It has just ended.
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
