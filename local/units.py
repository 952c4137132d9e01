"""Runs systemd service units below a root folder: the part of systemd that the trainer's units use.

Not modelled, since a laptop is no machine that boots: ordering and network targets, reboots, and the pause before a
restart (RestartSec), which is cut short. A directive that is neither modelled nor known to be harmless is refused;
OnSuccess= among them, because systemd 252 sets it off at each restart after a failure too.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local import processes

UNIT_FOLDER = "etc/systemd/system"
MODELLED = {
    "Unit": {"ConditionPathExists", "StartLimitBurst", "OnFailure"},
    "Service": {"Environment", "ExecStart", "Restart", "RestartPreventExitStatus", "RuntimeMaxSec", "StandardOutput",
                "TimeoutStartSec", "Type", "WorkingDirectory"},
}  # fmt: skip
WITHOUT_EFFECT_HERE = {
    "Unit": {"Description", "Wants", "After", "StartLimitIntervalSec"},
    "Service": {"RestartSec", "StandardError", "TimeoutStopSec"},
    "Install": {"WantedBy"},
}
# Where a unit names no StartLimitBurst, systemd's interval lets it restart for ever. A laptop does not wait for ever.
MOST_STARTS = 3
MOST_RUNTIME_SECONDS = 86400.0


class UnitError(Exception):
    """A unit this runner cannot run as systemd would; the message names unit and directive."""


@dataclass(frozen=True)
class Unit:
    """A unit file: settings["Section"]["Directive"] is the list of its values, in the file's order."""

    name: str
    settings: Mapping[str, Mapping[str, list[str]]]

    def get(self, section: str, directive: str, default: str = "") -> str:
        """The last value, which is the one that counts for directives of one value."""
        return self.settings.get(section, {}).get(directive, [default])[-1]


def parse(name: str, text: str) -> Unit:
    """Raises UnitError for a line that is no unit syntax or a directive this runner does not know."""
    settings: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            settings.setdefault(section, {})
            continue
        directive, equals, value = line.partition("=")
        known = MODELLED.get(section, set()) | WITHOUT_EFFECT_HERE.get(section, set())
        if not equals or directive not in known:
            raise UnitError(f"{name}: {line!r} in [{section}] is not modelled by local/units.py")
        settings[section].setdefault(directive, []).append(value)
    return Unit(name, settings)


@dataclass(frozen=True)
class Machine:
    """A root folder with unit files in it, and the environment that systemd would hand to services."""

    root: Path
    environment: Mapping[str, str]

    def start(self, name: str) -> int:
        """Runs a service to its end, restarts and the units it sets off included.

        Returns the exit status of its last run (negative: the signal that ended it); 0 when its condition is not met.
        A unit that was set off by its failure and failed itself is a UnitError.
        """
        unit = parse(name, (self.root / UNIT_FOLDER / name).read_text())
        if not self._conditions_hold(unit):
            return 0
        prevented = {_status(word) for word in unit.get("Service", "RestartPreventExitStatus").split()}
        for _ in range(int(unit.get("Unit", "StartLimitBurst", str(MOST_STARTS)))):
            status, timed_out = self._run(unit)
            failed = status != 0 or timed_out
            if not failed or unit.get("Service", "Restart") != "on-failure" or status in prevented:
                break
        monitor = {
            "MONITOR_UNIT": name,
            "MONITOR_SERVICE_RESULT": "timeout" if timed_out else "signal" if status < 0 else "exit-code",
            "MONITOR_EXIT_STATUS": signal.Signals(-status).name.removeprefix("SIG") if status < 0 else str(status),
        }
        for triggered in unit.get("Unit", "OnFailure").split() if failed else []:
            if triggered_status := Machine(self.root, {**self.environment, **monitor}).start(triggered):
                raise UnitError(f"{triggered}, set off by {name}, ended with status {triggered_status}")
        return status

    def _run(self, unit: Unit) -> tuple[int, bool]:
        """One start: (exit status, whether it was ended at its time limit). What it leaves behind ends with it."""
        folder = self._below_root(unit.get("Service", "WorkingDirectory", "/"))
        output = unit.get("Service", "StandardOutput").removeprefix("append:")
        assignments = [shlex.split(value) for value in unit.settings["Service"].get("Environment", [])]
        own = dict(assignment.split("=", 1) for values in assignments for assignment in values)
        limit = "TimeoutStartSec" if unit.get("Service", "Type") == "oneshot" else "RuntimeMaxSec"
        process = processes.start(
            shlex.split(unit.get("Service", "ExecStart")),
            name=unit.name,
            state_dir=self.root / "run",
            log_path=self._below_root(output) if output else None,
            cwd=folder,
            environment={**self.environment, **own},
        )
        try:
            return process.wait(float(unit.get("Service", limit, str(MOST_RUNTIME_SECONDS)))), False
        except TimeoutError:
            return process.stop(), True
        finally:
            process.stop()

    def _conditions_hold(self, unit: Unit) -> bool:
        conditions = unit.settings.get("Unit", {}).get("ConditionPathExists", [])
        return all(self._below_root(value.lstrip("!")).exists() != value.startswith("!") for value in conditions)

    def _below_root(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def _status(word: str) -> int:
    return int(word) if word.isdigit() else -signal.Signals[word]
