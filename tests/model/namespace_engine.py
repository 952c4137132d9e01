#!/usr/bin/env python3
"""A stand-in for docker that runs a container's process for real, in namespaces of its own; no image is involved.

It knows the calls of model/container/test/image.py and the options that count: the process is the first of its PID
namespace, without network, with a read-only root file system and a /tmp in memory, as user 999 without a capability.
What runs is the server of this checkout, with the Dockerfile's variables, under the Python that HOSTING_PYTHON names;
STATE is an empty folder for its state. LOOSE names what is left out of the confinement (user, network or read-only), to
show that the test sees it.
Needs root, or a user who may make namespaces and become another user in them.
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["STATE"])
PYTHON = os.environ["HOSTING_PYTHON"]
CONTAINER = Path(__file__).resolve().parents[2] / "model" / "container"
# Where they lie inside, wherever the checkout lies: a /tmp of its own would hide it there.
PYTHON_INSIDE, SERVER_INSIDE = "/opt/hosting/bin/python", "/opt/serving/serve.py"
LOOSE = os.environ.get("LOOSE")
AS_ANOTHER = ["setpriv", "--reuid=999", "--regid=999", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
CONFINED = [] if LOOSE == "user" else AS_ANOTHER


def run(arguments: list[str]) -> None:
    volumes = [value.split(":") for flag, value in itertools.pairwise(arguments) if flag == "--volume"]
    volumes += [[str(Path(PYTHON).parents[1]), "/opt/hosting", "ro"], [str(CONTAINER), "/opt/serving", "ro"]]
    opt = STATE / "opt"
    setup = ["mount --make-rprivate /", "ip link set lo up"]
    for source, target, _ in volumes:
        inside = STATE / target.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.mkdir() if Path(source).is_dir() else inside.touch()
        setup.append(shlex.join(["mount", "--bind", source, str(inside)]))
        setup.append(shlex.join(["mount", "-o", "remount,bind,ro", str(inside)]))
    setup += [shlex.join(["mount", "--rbind", str(opt), "/opt"]), *open_way_to_python(), "mount -t proc proc /proc"]
    if "--read-only" in arguments and LOOSE != "read-only":
        setup.append("mount -o remount,bind,ro /")
    setup.append("mount -t tmpfs -o mode=1777 tmpfs /tmp")
    [variables] = re.findall(r"^ENV (.+)$", (CONTAINER / "Dockerfile").read_text(), re.MULTILINE)
    environment = ["env", "-i", f"PATH={os.environ['PATH']}", *variables.split()]
    process = [*environment, PYTHON_INSIDE, SERVER_INSIDE, "serve"]
    if LOOSE == "network":
        setup.append("ip address add 192.0.2.2/24 dev lo")  # a way out, which ends here
    setup += ["cd /tmp", "exec " + shlex.join([*CONFINED, *process])]
    unshare = shlex.join(["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", " && ".join(setup)])
    with open(STATE / "log", "w") as log:
        subprocess.Popen(
            ["sh", "-c", f"{unshare} & echo $! > {STATE}/unshare; wait $!; echo $? > {STATE}/status"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    print("container")


def open_way_to_python() -> list[str]:
    """Commands that lay Python where it is also for those who may not enter its installer's home folder."""
    home = Path(PYTHON).resolve().parents[1]
    closed = [folder for folder in reversed(home.parents) if not folder.stat().st_mode & 0o001]
    kept = STATE / "python"
    kept.mkdir()
    commands = [["mount", "--bind", home, kept], ["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", *closed[:1]]]
    commands += [["mkdir", "-p", home], ["mount", "--bind", kept, home]]
    return [shlex.join(map(str, command)) for command in commands] if closed else []


def first_process(seconds: float = 5) -> int:
    """The id, out here, of the container's first process; 0 where it has ended."""
    deadline = time.monotonic() + seconds
    while not (STATE / "status").exists() and time.monotonic() < deadline:
        try:
            unshare = int((STATE / "unshare").read_text())
            [process, *_] = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
            # Before that it is the shell, which lays out the file system.
            if SERVER_INSIDE.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"):
                return int(process)
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    return 0


def execute() -> int:
    if not (process := first_process()):
        print("the container is not running", file=sys.stderr)
        return 1
    enter = ["nsenter", f"--target={process}", "--mount", "--net", "--pid", "--wd=/tmp"]
    return subprocess.run([*enter, *CONFINED, PYTHON_INSIDE, "-"], check=False).returncode


def stop(seconds: float) -> None:
    if process := first_process():
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while not (STATE / "status").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not (STATE / "status").exists():
            os.kill(process, signal.SIGKILL)


def remove() -> None:
    """With the first process the kernel ends all others of its namespace."""
    if process := first_process(seconds=0.1):
        os.kill(process, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["image", "inspect", *_]:
            print(0)
        case ["inspect", *_]:
            print((STATE / "status").read_text().strip() if (STATE / "status").exists() else 137)
        case ["run", *options]:
            run(options)
        case ["exec", *_]:
            return execute()
        case ["stop", "-t", seconds, _]:
            stop(float(seconds))
        case ["logs", *_]:
            print((STATE / "log").read_text(), end="")
        case ["rm", *_]:
            remove()
        case _:
            sys.exit(f"the stand-in does not know {arguments}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
