"""`python -m security supply`: what is installed and shipped is locked by hash, audited, and carries no secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from security.disclosures import ROOT, disclosures, tracked_files
from security.plan import listed

PIP_AUDIT = ROOT / ".venv-supply" / "bin" / "pip-audit"
ADVISORIES = Path(__file__).with_name("advisories.yaml")
# PyTorch's own index has torch without CUDA, under other hashes; the rest of the box's packages is in model's lock.
UNLOCKED = {ROOT / "ec2_userdata" / "requirements.txt"}
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)")


class OutOfReach(Exception):
    """The vulnerability data cannot be had; the message says of what."""


def report() -> list[str]:
    """Prints the figures; returns what does not hold, a line each. Raises ValueError for a wrong advisories.yaml."""
    requirements = locked_files()
    locks = [path.with_suffix(".lock") for path in requirements]
    failed = [fault for path in requirements for fault in lock_faults(path)]
    locked = {pin for lock in locks if lock.is_file() for pin in pins(lock)}
    print(f"{len(locks)} locks, {len(locked)} versions of packages: {'all' if not failed else 'NOT all'} by their hash")
    reasons = explained()
    failed += [
        f"{ADVISORIES.name}: {advisory} is of {package}=={version}, which no lock has"
        for advisory, package, version in sorted(reasons)
        if (package, version) not in locked
    ]
    print(f"{len(reasons)} advisories explained in {ADVISORIES.name}")
    try:
        audited, unexplained = audit(locks)
        failed += [f"pip-audit: {finding}" for finding in unexplained]
        print(f"pip-audit: {audited} packages audited, {len(unexplained)} advisories unexplained")
    except OutOfReach as missing:
        print(f"pip-audit: NOT AUDITED: {missing}")
    found = disclosures()
    failed += [f"disclosed: {disclosure}" for disclosure in found]
    print(f"{len(tracked_files())} files of the repository: {len(found)} secrets, account ids or bucket names")
    return failed


def locked_files() -> list[Path]:
    """The requirements files beside which there must be a lock."""
    return [path for path in tracked_files() if path.match("requirements*.txt") and path not in UNLOCKED]


def pins(path: Path) -> set[tuple[str, str]]:
    """(name, version) of each pin of a requirements file or a lock."""
    return {(normal(name), version) for name, version in re.findall(rf"(?m)^{PIN.pattern}", path.read_text())}


def normal(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_faults(requirements: Path) -> list[str]:
    """What the lock beside a requirements file lacks, or names that it must not."""
    lock = requirements.with_suffix(".lock")
    if not lock.is_file():
        return [f"{lock}: is missing: add it to the Makefile and run make lock"]
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", text))
    faults = [f"{lock}: {name}=={version} is not in it: run make lock" for name, version in missing(requirements, lock)]
    faults += [
        f"{lock}: no hash for {entry.split()[0]}" for entry in entries if "==" in entry and "--hash=" not in entry
    ]
    faults += [f"{lock}: names a host: {url}" for url in re.findall(r"\w+://\S+|(?m:^--(?:extra-)?index-url.*)", text)]
    return faults


def missing(requirements: Path, lock: Path) -> list[tuple[str, str]]:
    return sorted(pins(requirements) - pins(lock))


def services() -> list[list[str]]:
    """pip-audit's options for where it looks advisories up, in turn: OSV_URL's alone, or PyPI's own and OSV's."""
    url = os.environ.get("OSV_URL")
    return [["-s", "osv", "--osv-url", url]] if url else [["-s", "pypi"], ["-s", "osv"]]


def audit(locks: Sequence[Path]) -> tuple[int, list[str]]:
    """How many packages pip-audit looked up, and the advisories that advisories.yaml does not explain.

    Raises OutOfReach where no service knows them all.
    """
    missing = []
    for service in services():
        try:
            return _audit(locks, service)
        except OutOfReach as error:
            missing.append(f"{service[1]}: {error}")
    raise OutOfReach("; ".join(missing))


def _audit(locks: Sequence[Path], service: Sequence[str]) -> tuple[int, list[str]]:
    reasons, audited, unexplained = explained(), set(), set()
    for lock in locks:
        for package in looked_up(pip_audit(lock, service)):
            pin = normal(package["name"]), package["version"]
            audited.add(pin)
            for advisory in package["vulns"]:
                # Each service knows one flaw by a name of its own.
                if not any((name, *pin) in reasons for name in (advisory["id"], *advisory["aliases"])):
                    unexplained.add(f"{'=='.join(pin)}: {advisory['id']}")
    return len(audited), sorted(unexplained)


def explained() -> set[tuple[str, str, str]]:
    """(id, package, version) of the advisories that do not hold here."""
    entries = yaml.safe_load(ADVISORIES.read_text())
    return {(one, entry["package"], entry["version"]) for entry in entries for one in listed(entry["id"])}


def looked_up(written: str) -> Iterator[dict]:
    """pip-audit itself succeeds where its service knows no package at all, as a mirror of the index does not."""
    for package in json.loads(written)["dependencies"]:
        if "skip_reason" in package:
            raise OutOfReach(package["skip_reason"])
        yield package


def pip_audit(lock: Path, service: Sequence[str]) -> str:
    """What it writes of a lock, as JSON."""
    if not PIP_AUDIT.is_file():
        raise OutOfReach(f"no {PIP_AUDIT.relative_to(ROOT)}: make security sets it up")
    asked = ["-f", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes", *service, "-r", str(lock)]
    done = subprocess.run([str(PIP_AUDIT), *asked], cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout:
        said = done.stderr.strip().splitlines() or [f"pip-audit ended with status {done.returncode}"]
        raise OutOfReach(said[-1])
    return done.stdout
