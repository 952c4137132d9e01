"""The notebook's start script and idle watcher, as Terraform renders them, run against a Jupyter API on loopback.

Stand-ins, as the real ones are machine-wide or need an account: `aws`, `systemctl` and `runuser` on PATH, a folder as
as the process table, and a small HTTP server as Jupyter's API.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import pty
import shlex
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

TERRAFORM = Path(__file__).resolve().parents[2] / "terraform"
IDLE_MINUTES = 60


def code_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("model/submit.py", "model/classifier/jobs.py", "requirements.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return buffer.getvalue()


CODE = code_archive()
SHA256 = hashlib.sha256(CODE).hexdigest()
SUBMISSION = {
    "bucket": "artifacts",
    "code_key": f"code/{SHA256}.tar.gz",
    "image_uri": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2",
    "instance_type": "ml.m5.xlarge",
    "kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "name": "classifier",
    "region": "eu-west-1",
    "role_arn": "arn:aws:iam::123456789012:role/classifier-training",
    "security_group_ids": ["sg-1"],
    "subnet_ids": ["subnet-1", "subnet-2"],
}


@pytest.fixture(scope="module")
def on_start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The start script out of the module's plan, made by the real provider without any call to AWS."""
    root = tmp_path_factory.mktemp("notebook")
    mirror = TERRAFORM / "terraform.d" / "plugins"
    if mirror.exists():
        (root / "terraform.d").mkdir()
        (root / "terraform.d" / "plugins").symlink_to(mirror.resolve())
    module = {
        "source": str(TERRAFORM / "modules" / "notebook"),
        "code_bucket": "artifacts",
        "code_key": SUBMISSION["code_key"],
        "code_sha256": SHA256,
        "idle_minutes": IDLE_MINUTES,
        "instance_type": "ml.t3.medium",
        "kms_key_arn": SUBMISSION["kms_key_arn"],
        "name": "classifier",
        "role_arn": "arn:aws:iam::123456789012:role/classifier-notebook",
        "security_group_id": "sg-1",
        "submission": SUBMISSION,
        "subnet_id": "subnet-1",
    }
    offline = ("skip_credentials_validation", "skip_metadata_api_check", "skip_requesting_account_id")
    provider = {"region": "us-east-1"} | dict.fromkeys(offline, True)
    (root / "main.tf.json").write_text(json.dumps({"provider": {"aws": provider}, "module": {"notebook": module}}))
    for arguments in (["init", "-input=false"], ["plan", "-input=false", "-out=plan"], ["show", "-json", "plan"]):
        result = subprocess.run(["terraform", *arguments], cwd=root, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    [script] = [
        change["change"]["after"]["on_start"]
        for change in json.loads(result.stdout)["resource_changes"]
        if change["type"] == "aws_sagemaker_notebook_instance_lifecycle_configuration"
    ]
    assert len(script) <= 16384, "SageMaker refuses a longer script"
    return base64.b64decode(script).decode()


class Machine:
    """A folder that stands for the notebook instance: its files, its commands and what was asked of them."""

    def __init__(self, root: Path, on_start: str) -> None:
        self.root = root
        self.commands = root / "commands"
        self.workspace = root / "home/ec2-user/SageMaker/classifier"
        for folder in ("bin", "etc/systemd/system", "home/ec2-user/SageMaker", "opt", "run", "tmp"):
            (root / folder).mkdir(parents=True)
        (root / "code.tar.gz").write_bytes(CODE)
        self.command("aws", f'if [ "$1" = s3 ]; then cp "{root}/code.tar.gz" "${{@: -1}}"; fi')
        self.command("systemctl", "")
        self.command("runuser", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
        # The same script, below this folder instead of the file system's root.
        for path in ("/opt/notebook", "/etc/systemd/system", "/home/ec2-user", "/run/stop-when-idle"):
            assert path in on_start
            on_start = on_start.replace(path, f"{root}{path}")
        self.script = on_start.replace('export PATH="', f'export PATH="{root}/bin:')

    def command(self, name: str, does: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.commands}"\n{does}\n')
        path.chmod(0o755)

    def start(self) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(self.root / "tmp")}
        return subprocess.run(
            ["bash"], input=self.script, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def calls(self, name: str) -> list[str]:
        lines = self.commands.read_text().splitlines() if self.commands.exists() else []
        return [line for line in lines if line.split()[0] == name]


@pytest.fixture
def machine(on_start: str, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", on_start)


class TestStart:
    def test_code_and_settings_arrive(self, machine: Machine) -> None:
        result = machine.start()
        assert result.returncode == 0, result.stderr
        assert (machine.workspace / "model/submit.py").read_text() == "model/submit.py"
        assert json.loads((machine.workspace / "model/submission.json").read_text()) == SUBMISSION
        [fetch] = machine.calls("aws")
        assert f"s3://artifacts/code/{SHA256}.tar.gz" in fetch and "--region eu-west-1" in fetch

    def test_timer_runs_and_is_looked_at_anew(self, machine: Machine) -> None:
        assert machine.start().returncode == 0
        asked = machine.calls("systemctl")
        assert asked.index("systemctl daemon-reload") < asked.index("systemctl restart stop-when-idle.timer")
        assert "systemctl enable stop-when-idle.timer" in asked

    def test_wrong_archive_is_not_unpacked(self, machine: Machine) -> None:
        (machine.root / "code.tar.gz").write_bytes(CODE + b"!")
        assert machine.start().returncode != 0
        assert not machine.workspace.exists()

    def test_another_start_replaces_the_code_and_keeps_the_users_files(self, machine: Machine) -> None:
        assert machine.start().returncode == 0
        (machine.workspace / "mine.ipynb").write_text("work")
        (machine.workspace / "model/stale.py").write_text("of the old release")
        assert machine.start().returncode == 0
        assert (machine.workspace / "mine.ipynb").read_text() == "work"
        assert not (machine.workspace / "model/stale.py").exists()
        assert (machine.workspace / "model/submission.json").exists()

    def test_only_the_user_touches_the_users_folder(self, machine: Machine) -> None:
        """Root would follow the links that a user plants there."""
        machine.command("runuser", "exit 0")
        assert machine.start().returncode == 0
        assert list((machine.root / "home/ec2-user").rglob("*")) == [machine.root / "home/ec2-user/SageMaker"]


class Jupyter(http.server.ThreadingHTTPServer):
    """Jupyter's API with settable kernels and terminals; any other value is sent as it is."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/kernels": [], "/api/terminals": []}
        self.queries: list[str] = []
        super().__init__(("127.0.0.1", 0), JupyterHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class JupyterHandler(http.server.BaseHTTPRequestHandler):
    server: Jupyter

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.queries.append(query)
        answer = self.server.answers.get(path)
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def jupyter() -> Iterator[Jupyter]:
    with Jupyter() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Watcher:
    """The unit's own command line with the stand-ins' addresses, one look at a time."""

    def __init__(self, machine: Machine, jupyter: Jupyter) -> None:
        assert machine.start().returncode == 0
        machine.commands.unlink()
        self.machine, self.jupyter = machine, jupyter
        self.state = machine.root / "run/stop-when-idle"
        self.processes = machine.root / "proc"
        self.processes.mkdir()
        unit = (machine.root / "etc/systemd/system/stop-when-idle.service").read_text()
        [command] = [line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")]
        interpreter, *self.arguments = shlex.split(command)
        assert interpreter == "/usr/bin/python3"

    def look(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *self.arguments, "--jupyter", self.jupyter.url, "--processes", str(self.processes)]
        environment = {"PATH": f"{self.machine.root}/bin:/usr/bin:/bin"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def used(self, minutes_ago: float) -> None:
        self.state.write_text(str(time.time() - minutes_ago * 60))

    def stops(self) -> bool:
        result = self.look()
        assert result.returncode == 0, result.stderr
        calls = self.machine.calls("aws")
        if calls:
            assert calls == [
                "aws sagemaker stop-notebook-instance --region eu-west-1 --notebook-instance-name classifier"
            ]
        return bool(calls)


@pytest.fixture
def watcher(machine: Machine, jupyter: Jupyter) -> Watcher:
    return Watcher(machine, jupyter)


def ago(minutes: float) -> str:
    """Jupyter's timestamp for some minutes ago."""
    return datetime.fromtimestamp(time.time() - minutes * 60, UTC).isoformat().replace("+00:00", "Z")


def kernel(minutes: float, state: str = "idle", connections: int = 1) -> dict[str, Any]:
    return {"id": "k", "last_activity": ago(minutes), "execution_state": state, "connections": connections}


class TestIdle:
    def test_the_first_look_starts_the_clock(self, watcher: Watcher) -> None:
        assert not watcher.stops()
        assert abs(float(watcher.state.read_text()) - time.time()) < 60

    def test_a_notebook_nobody_opened_is_stopped(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 1)
        assert watcher.stops()

    def test_nothing_happens_before_the_time_is_up(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES - 5)
        assert not watcher.stops()

    def test_an_idle_kernel_under_an_open_tab_is_stopped(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 10)
        watcher.jupyter.answers["/api/kernels"] = [kernel(IDLE_MINUTES + 1, connections=2)]
        assert watcher.stops()

    def test_recent_kernel_activity_counts(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 10)
        watcher.jupyter.answers["/api/kernels"] = [kernel(IDLE_MINUTES + 1), kernel(IDLE_MINUTES - 5)]
        assert not watcher.stops()

    def test_a_busy_kernel_counts_however_quiet(self, watcher: Watcher) -> None:
        watcher.used(10 * IDLE_MINUTES)
        watcher.jupyter.answers["/api/kernels"] = [kernel(9 * IDLE_MINUTES, "busy")]
        assert not watcher.stops()
        watcher.jupyter.answers["/api/kernels"] = []  # done: the clock starts when it was last seen busy
        assert not watcher.stops()

    def test_a_kernel_that_hangs_in_its_start_is_not_use(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 10)
        watcher.jupyter.answers["/api/kernels"] = [kernel(IDLE_MINUTES + 1, "starting")]
        assert watcher.stops()

    def test_recent_terminal_activity_counts(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 10)
        watcher.jupyter.answers["/api/terminals"] = [{"name": "1", "last_activity": ago(IDLE_MINUTES - 5)}]
        assert not watcher.stops()

    def test_an_open_terminal_that_does_nothing_is_stopped(self, watcher: Watcher) -> None:
        watcher.used(IDLE_MINUTES + 10)
        watcher.jupyter.answers["/api/terminals"] = [{"name": "1", "last_activity": ago(IDLE_MINUTES + 1)}]
        assert watcher.stops()

    def test_a_quiet_command_in_a_terminal_counts_until_it_ends(self, watcher: Watcher) -> None:
        """With a real shell on a real pseudo-terminal, whose line of the process table is copied."""
        shell, terminal = pty.fork()
        if shell == 0:
            os.execv("/bin/bash", ["bash", "--norc", "-i"])  # -i: job control, as in Jupyter's terminals
        try:
            os.write(terminal, b"cat\n")  # waits for input, prints nothing
            assert self._foreground(shell, lambda group: group not in (-1, shell))
            watcher.used(10 * IDLE_MINUTES)
            self._copy(shell, watcher)
            assert not watcher.stops()

            os.write(terminal, b"\x04")
            assert self._foreground(shell, lambda group: group == shell)
            watcher.used(10 * IDLE_MINUTES)
            self._copy(shell, watcher)
            assert watcher.stops()
        finally:
            os.close(terminal)
            os.waitpid(shell, 0)

    @staticmethod
    def _foreground(shell: int, wanted: Any) -> bool:
        for _ in range(500):
            if wanted(int(Path(f"/proc/{shell}/stat").read_text().rpartition(")")[2].split()[5])):
                return True
            time.sleep(0.02)
        return False

    @staticmethod
    def _copy(shell: int, watcher: Watcher) -> None:
        folder = watcher.processes / str(shell)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(Path(f"/proc/{shell}/stat").read_text())

    @pytest.mark.parametrize("answer", [b"<html>starting</html>", b"", [{"name": 1}], ["kernel"], {"a": 1}, None])
    def test_strange_answers_do_not_stop_the_clock(self, watcher: Watcher, answer: Any) -> None:
        watcher.jupyter.answers = dict.fromkeys(watcher.jupyter.answers, answer)
        watcher.used(IDLE_MINUTES - 5)
        assert not watcher.stops()
        watcher.used(IDLE_MINUTES + 1)
        assert watcher.stops()

    def test_a_dead_jupyter_does_not_stop_the_clock(self, watcher: Watcher) -> None:
        watcher.jupyter.server_close()
        watcher.used(IDLE_MINUTES + 1)
        assert watcher.stops()

    def test_a_clock_that_ran_ahead_cannot_keep_it_running(self, watcher: Watcher) -> None:
        watcher.jupyter.answers["/api/kernels"] = [kernel(-10 * IDLE_MINUTES)]
        assert not watcher.stops()
        assert float(watcher.state.read_text()) <= time.time()

    def test_looking_is_not_activity(self, watcher: Watcher) -> None:
        watcher.look()
        assert watcher.jupyter.queries == ["no_track_activity=1"] * 2

    def test_a_refused_stop_is_tried_again(self, watcher: Watcher) -> None:
        watcher.machine.command("aws", "exit 254")
        watcher.used(IDLE_MINUTES + 1)
        assert watcher.look().returncode != 0
        watcher.machine.command("aws", "")
        watcher.machine.commands.unlink()
        assert watcher.stops()
