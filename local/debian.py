"""A Debian that boots on this machine: debootstrap's tree, and its own systemd as process 1 in namespaces of its own.

For the trainer's box: cloud-init and the units run as on EC2. It is no virtual machine: kernel, network and processors
are this machine's, a reboot is a second start. Linux, and root, only; `unavailable` says why not here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from local import processes

PROCESS_1 = Path(__file__).with_name("namespace_init.sh")
# What EC2's image of Debian brings, as far as the box needs it. debootstrap does not see that cryptography needs cffi.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "cloud-init", "python3-cffi-backend")
# Seen from process 1 of a namespace a terminal is nobody's, and updates at odd hours are no part of a test.
MASKED = ("console-getty.service", "getty@.service", "apt-daily.timer", "apt-daily-upgrade.timer")
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork")
CLOUD_CONFIG = """\
datasource_list: [NoCloud]
locale: C.UTF-8
network: {config: disabled}
apt: {preserve_sources_list: true}
"""


def unavailable() -> str | None:
    """Why no Debian boots here, or None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "booting a Debian needs root"
    for tool in ("apt-get", "debootstrap", "unshare", "pivot_root"):
        if not shutil.which(tool):
            return f"booting a Debian needs {tool}, which is not installed"
    if _cgroup_root() is None:
        return "booting a Debian needs a mounted cgroup2 file system"
    if _mirror() is None:
        return "booting a Debian needs a Debian mirror among this machine's apt sources"
    namespaces = [
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--cgroup",
        "--fork",
        "mount",
        "--make-rprivate",
        "/",
    ]
    if subprocess.run(namespaces, capture_output=True, check=False).returncode != 0:
        return "booting a Debian needs mount, process and cgroup namespaces, which are forbidden here"
    return None


def tree(cache: Path, packages: tuple[str, ...] = ()) -> Path:
    """A Debian of this machine's own release below `cache`, made at the first call: minutes, and some 500 MB.

    packages: what it has besides a minimal system and cloud-init. Raises CalledProcessError where debootstrap fails.
    """
    mirror, release = _mirror()
    included = (*PACKAGES, *packages)
    name = hashlib.sha256("\n".join((*included, *MASKED, CLOUD_CONFIG)).encode()).hexdigest()[:12]
    folder = cache / f"{release}-{name}"
    if folder.is_dir():
        return folder
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(included)}", release, part, mirror]
    with open(cache / "debootstrap.log", "wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    (part / "etc/cloud/cloud.cfg.d/90-local.cfg").write_text(CLOUD_CONFIG)
    for unit in MASKED:
        (part / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (part / "var/log/journal").mkdir(exist_ok=True)  # kept over a reboot
    part.rename(folder)
    return folder


class Machine:
    """A copy of such a tree, with a power switch.

    Attributes:
        root: its `/` as this machine sees it.
    """

    def __init__(
        self,
        tree: Path,
        folder: Path,
        *,
        instance_id: str,
        user_data: str,
        environment: Mapping[str, str],
        mounts: Mapping[Path, str],
    ) -> None:
        """folder: where it lies. environment: of every service. mounts: what is seen in there, read-only, and where."""
        self.root = folder / "root"
        self._folder, self._mounts = folder, mounts
        self._cgroup = _cgroup_root() / f"debian-{os.getpid()}-{instance_id}"
        self._process: processes.Process | None = None
        folder.mkdir(parents=True)
        subprocess.run(["cp", "-a", "--reflink=auto", tree, self.root], check=True)
        seed = self.root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "user-data").write_text(user_data)
        (seed / "meta-data").write_text(f"instance-id: {instance_id}\nlocal-hostname: box\n")
        settings = self.root / "etc/systemd/system.conf.d/environment.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        assignments = " ".join(f'"{name}={value}"' for name, value in environment.items())
        settings.write_text(f"[Manager]\nDefaultEnvironment={assignments}\n")
        shutil.copyfile("/etc/resolv.conf", self.root / "etc/resolv.conf")

    def start(self) -> None:
        """Boots. cloud-init takes the first start for the instance's first, and every other for a reboot."""
        self._cgroup.mkdir(exist_ok=True)
        mounts = [os.fspath(part) for pair in self._mounts.items() for part in pair]
        # Into a cgroup of its own first: it becomes the root of what systemd in there sees and manages.
        enter = 'echo $$ > "$0/cgroup.procs" && exec unshare "$@"'
        self._process = processes.start(
            ["sh", "-c", enter, self._cgroup, *NAMESPACES, "sh", PROCESS_1, self.root, *mounts],
            name="debian",
            state_dir=self._folder / "power",
            cwd=self._folder,
            grace_seconds=0,
        )

    def cut_power(self) -> None:
        """Every process in there is gone at once, as it stands."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def shut_down(self, timeout_seconds: float) -> None:
        """As `systemctl poweroff`: every service is asked to stop. TimeoutError where it takes longer."""
        self.run("systemctl", "poweroff")
        self._process.wait(timeout_seconds)
        self.cut_power()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in there, as root."""
        enter = ["nsenter", "--target", str(self._process_1()), "--all", "--"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)

    def _process_1(self) -> int:
        for pid in self._process.members():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()[-1] == "1":
                    return pid
        raise RuntimeError(f"it is not running: {self._process.log_tail()}")


def _mirror() -> tuple[str, str] | None:
    """(URL, release) of this machine's own main Debian source."""
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CODENAME)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages", "Origin: Debian"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    for url, release, component, codename in (line.split() for line in listed if len(line.split()) == 4):
        if component == "main" and release == codename:
            return url, release
    return None


def _cgroup_root() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    return None
