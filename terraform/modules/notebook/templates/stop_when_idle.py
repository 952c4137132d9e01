"""Stop this notebook instance once nobody has used it for a while; a systemd timer runs it every minute.

In use is a kernel that computes, a terminal that runs a command, or either with activity in the last --idle-minutes.
An open browser tab is not: a forgotten tab is what keeps notebooks running. The time of the last use is kept in
--state, so that a Jupyter server that never answers also ends in a stop. Standard library and Python 3.7 only: this
runs on the platform's own interpreter.
"""

import argparse
import json
import ssl
import subprocess
import time
import urllib.request
from datetime import datetime
from pathlib import Path


def fetch(url: str) -> list:
    """Answer of Jupyter's API: a list of dicts. The query keeps this look from counting as activity itself."""
    loopback_only = ssl._create_unverified_context()  # Jupyter's certificate is self-signed; nothing leaves the machine
    with urllib.request.urlopen(url + "?no_track_activity=1", context=loopback_only, timeout=10) as answer:
        return json.load(answer)


def seconds(timestamp: str) -> float:
    """Seconds since the epoch of Jupyter's ISO 8601 timestamps in UTC."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def last_activity(jupyter: str, now: float) -> float:
    """Latest use that Jupyter knows of, in seconds since the epoch; 0 where it knows of none."""
    latest = 0.0
    for kind in ("kernels", "terminals"):
        try:
            for one in fetch(f"{jupyter}/api/{kind}"):
                busy = one.get("execution_state") == "busy"
                latest = max(latest, now if busy else seconds(one["last_activity"]))
        except Exception as error:  # whatever Jupyter answers, the clock of --state must go on
            print(f"cannot read Jupyter's {kind}: {error!r}")
    return latest


def terminal_runs_command(processes: str) -> bool:
    """Whether a shell on a pseudo-terminal has given the foreground to a command, however quiet that command is."""
    for stat in Path(processes).glob("[0-9]*/stat"):
        try:
            pid = int(stat.parent.name)
            # Behind the command's name, which may hold anything: state ppid pgrp session tty_nr tpgid ...
            group, session, tty, foreground = map(int, stat.read_text().rpartition(")")[2].split()[2:6])
        except (OSError, ValueError):  # the process ended meanwhile
            continue
        pseudo_terminal = 136 <= tty >> 8 <= 143
        if pid == session and pseudo_terminal and foreground not in (-1, group):
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebook", required=True, help="name of the notebook instance")
    parser.add_argument("--region", required=True)
    parser.add_argument("--idle-minutes", type=float, required=True)
    parser.add_argument("--state", type=Path, required=True, help="keeps the time of the last use; lost at a boot")
    parser.add_argument("--jupyter", default="https://localhost:8443", help="address of the Jupyter server")
    parser.add_argument("--processes", default="/proc", help="the process table")
    options = parser.parse_args()

    now = time.time()
    try:
        known = float(options.state.read_text())
    except (OSError, ValueError):  # the first look after a boot
        known = now
    used = now if terminal_runs_command(options.processes) else max(known, last_activity(options.jupyter, now))
    used = min(used, now)
    options.state.write_text(str(used))

    idle_minutes = (now - used) / 60
    if idle_minutes < options.idle_minutes:
        return
    print(f"idle for {idle_minutes:.0f} minutes: stopping {options.notebook}")
    command = ["aws", "sagemaker", "stop-notebook-instance", "--region", options.region]
    subprocess.run([*command, "--notebook-instance-name", options.notebook], check=True, timeout=60)


if __name__ == "__main__":
    main()
