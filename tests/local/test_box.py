"""local.box: cloud-config to files and a running service, as cloud-init and systemd would; and the fake metadata."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from local.box import UserDataError, boot
from local.instance_metadata import instance_metadata
from local.units import UnitError

PROJECT = Path(__file__).resolve().parents[2]

UNIT = """
[Unit]
ConditionPathExists=!/srv/done
StartLimitBurst=2
OnFailure=after.service
[Service]
WorkingDirectory=/srv
Environment=COLOUR=red "TWO=a b"
ExecStart=/usr/bin/env sh job.sh
StandardOutput=append:/srv/log
Restart=on-failure
RestartPreventExitStatus=2 SIGUSR1
RuntimeMaxSec={limit}
"""
AFTER = """
[Service]
Type=oneshot
WorkingDirectory=/srv
ExecStart=/usr/bin/env sh -c 'echo after $MONITOR_SERVICE_RESULT $MONITOR_EXIT_STATUS; exit {status}'
StandardOutput=append:/srv/log
"""


def user_data(
    job: str, *, limit: float = 60, after_status: int = 0, unit: str = UNIT, runcmd: str | None = None
) -> str:
    def literal(text: str) -> str:
        return "|\n" + "".join(f"      {line}\n" for line in text.splitlines())

    return (
        "#cloud-config\npackages: [sh]\nwrite_files:\n"
        f"  - path: /etc/systemd/system/job.service\n    content: {literal(unit.format(limit=limit))}"
        f"  - path: /etc/systemd/system/after.service\n    content: {literal(AFTER.format(status=after_status))}"
        f'  - path: /srv/job.sh\n    permissions: "0750"\n    content: {literal(job)}'
        f"runcmd:\n  - {runcmd or '[systemctl, enable, --now, job.service]'}\n"
    )


def run(root: Path, text: str, **environment: str) -> tuple[int, list[str]]:
    status = boot(text, root=root, environment=environment, instance_id="i-0abc")
    log = root / "srv/log"
    return status, log.read_text().splitlines() if log.exists() else []


def test_writes_files_with_modes_and_runs_the_service_in_its_environment(tmp_path):
    status, log = run(tmp_path, user_data("pwd; echo $COLOUR/$TWO/$AWS_REGION; command -v python3"), AWS_REGION="there")
    assert status == 0
    python = str(Path(sys.executable).parent / "python3")
    assert log == [str(tmp_path / "srv"), "red/a b/there", python]
    assert (tmp_path / "srv/job.sh").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "etc/systemd/system/job.service").stat().st_mode & 0o777 == 0o644


def test_nothing_of_this_process_but_what_is_given_reaches_the_service(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_LAPTOP", "1")
    _, log = run(tmp_path, user_data("env"))
    assert not [line for line in log if "SECRET_OF_THE_LAPTOP" in line]


@pytest.mark.parametrize(
    ("job", "status", "starts", "result"),
    [
        ("exit 0", 0, 1, None),
        ("exit 1", 1, 2, "exit-code 1"),
        ("exit 2", 2, 1, "exit-code 2"),
        ("kill -USR1 $$", -10, 1, "signal USR1"),
        ("kill -KILL $$", -9, 2, "signal KILL"),
        ("test -e tried || { touch tried; exit 1; }", 0, 2, None),
    ],
)
def test_restarts_as_the_unit_says_and_then_sets_off_what_follows(tmp_path, job, status, starts, result):
    found, log = run(tmp_path, user_data(f"echo start\n{job}"))
    assert (found, log) == (status, ["start"] * starts + ([f"after {result}"] if result else []))


def test_a_service_ends_at_its_limit_with_all_it_started(tmp_path):
    job = "sh -c 'echo $$ > child; sleep 600' & wait"
    status, log = run(tmp_path, user_data(job, limit=1).replace("SIGUSR1", "SIGTERM"))
    assert (status, log) == (-15, ["after timeout TERM"])
    child = Path("/proc", (tmp_path / "srv/child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_what_a_service_leaves_behind_ends_with_it(tmp_path):
    run(tmp_path, user_data("setsid sleep 600 & echo $! > child"))
    child = Path("/proc", (tmp_path / "srv/child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_condition_that_fails_is_no_failure(tmp_path):
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/done").touch()
    assert run(tmp_path, user_data("echo start")) == (0, [])


def test_the_failure_of_what_follows_is_not_hidden(tmp_path):
    with pytest.raises(UnitError, match=r"after.service, set off by job.service, ended with status 7"):
        run(tmp_path, user_data("exit 2", after_status=7))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (user_data("").replace("#cloud-config", "# cloud-config"), UserDataError, "must begin with"),
        (user_data("").replace("runcmd:", "runcmds:"), UserDataError, "'runcmds'"),
        (user_data("").replace("/srv/job.sh", "/../job.sh"), UserDataError, "leads out of the root"),
        (user_data("").replace("/srv/job.sh", "job.sh"), UserDataError, "is not absolute"),
        (user_data("", runcmd="[reboot]"), UserDataError, "is not modelled"),
        (user_data("", unit=UNIT.replace("Restart=", "Restarts=")), UnitError, "job.service: 'Restarts=on-failure'"),
        (user_data("", unit=UNIT.replace("OnFailure", "OnSuccess")), UnitError, "'OnSuccess=after.service'"),
        ("#cloud-config\nruncmd: [", UserDataError, "is no YAML"),
        ("#cloud-config\n- 1\n", UserDataError, "must be a mapping"),
        ("#cloud-config\nruncmd: []\nwrite_files: []\n", UserDataError, "must have"),
    ],
)
def test_what_is_not_modelled_is_refused(tmp_path, text, error, said):
    with pytest.raises(error, match=said):
        run(tmp_path / "root", text)


def test_a_second_boot_of_the_same_instance_leaves_what_was_written(tmp_path):
    run(tmp_path, user_data("echo first"))
    job = tmp_path / "srv/job.sh"
    job.write_text("echo changed")
    assert run(tmp_path, user_data("echo first")) == (0, ["first", "changed"])
    (tmp_path / "var/lib/cloud/data/instance-id").write_text("i-0def")  # its disk put into another instance
    assert run(tmp_path, user_data("echo first"))[1][-1] == "first"


def test_the_command_line(tmp_path):
    path = tmp_path / "user-data"
    path.write_text(user_data("echo $AWS_ENDPOINT_URL; exit 2"))
    command = [
        sys.executable,
        "-m",
        "local.box",
        "--user-data",
        path,
        "--root",
        tmp_path / "root",
        "--instance-id",
        "i-0",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    refused = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "AWS_ENDPOINT_URL is not set" in refused.stderr
    environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    status = subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode
    assert status == 2
    assert (tmp_path / "root/srv/log").read_text() == "http://127.0.0.1:9\nafter exit-code 2\n"


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    headers = {f"X-aws-ec2-metadata-{name.replace('_', '-')}": value for name, value in headers.items()}
    request = urllib.request.Request(url, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_metadata_is_given_for_a_token_only():
    with instance_metadata({"instance-id": "i-0abc"}) as url:
        token_url, id_url = f"{url}/latest/api/token", f"{url}/latest/meta-data/instance-id"
        assert get(id_url) == (401, "")
        assert get(id_url, token="invented") == (401, "")
        for lifetime in ({}, {"token_ttl_seconds": "0"}, {"token_ttl_seconds": "21601"}, {"token_ttl_seconds": "x"}):
            assert get(token_url, "PUT", **lifetime)[0] == 400
        status, token = get(token_url, "PUT", token_ttl_seconds="60")
        assert status == 200
        assert get(id_url, token=token) == (200, "i-0abc")
        assert get(f"{url}/latest/meta-data/nothing", token=token)[0] == 404
        assert get(token_url, token=token)[0] == 404


def test_botocore_gets_the_metadata_too():
    from botocore.utils import IMDSFetcher

    class Fetcher(IMDSFetcher):
        def instance_id(self) -> str:
            token = self._fetch_metadata_token()
            return self._get_request("latest/meta-data/instance-id", None, token).text

    with instance_metadata({"instance-id": "i-0abc"}) as url:
        assert Fetcher(base_url=url, env={}).instance_id() == "i-0abc"
