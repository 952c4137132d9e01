"""The command: what it prints, and one line and exit status 2 for a user's mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from capacity.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = str(ROOT / "terraform" / "environments" / "reference.tfvars")


@pytest.fixture
def busy_hour(tmp_path):
    path = tmp_path / "hour.csv"
    path.write_text("time,count\n" + "".join(f"{60 * minute},{120 if minute < 30 else 6}\n" for minute in range(60)))
    return str(path)


def printed(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_simulate_prints_latency_losses_capacity_and_cost(capsys, busy_hour):
    text = printed(capsys, "simulate", "--trace", busy_hour, "--config", REFERENCE)
    assert "hour.csv: 3,780 requests in 1.0 h" in text
    for name in ("p50", "p99", "over the SLO (500 ms)", "throttled (429)", "failed", "cold starts", "instance-hours"):
        assert re.search(rf"^{re.escape(name)}.* \S", text, re.M), name
    items = re.findall(r"^  (.+?)\s{2,}([\d,.]+)\s+([\d,.]+)$", text, re.M)
    columns = list(zip(*[[float(usd.replace(",", "")) for usd in row[1:]] for row in items], strict=True))
    assert items[-1][0] == "total"
    for column in columns:
        assert sum(column[:-1]) == pytest.approx(column[-1], abs=0.05)
    assert "assumed, not measured" in text


def test_explain_lists_decisions_with_their_datapoints(capsys, busy_hour):
    text = printed(capsys, "simulate", "--trace", busy_hour, "--config", REFERENCE, "--explain")
    assert re.search(r"0:04:00  1 to 3  alarm high, invocations per instance: 1\d\d 1\d\d 1\d\d\n", text)
    assert len(re.findall(r"alarm low, invocations per instance:( \d+(\.\d+)?){15}\n", text)) >= 2


@pytest.fixture
def nightly(tmp_path):
    path = tmp_path / "nightly.tfvars"
    path.write_text(
        """autoscaling_scheduled_actions = {
  morning = { schedule = "cron(0 8 ? * MON-FRI *)", timezone = "Europe/Berlin", min_capacity = 2, max_capacity = 4 }
  night   = { schedule = "cron(0 20 * * ? *)", timezone = "Europe/Berlin", min_capacity = 1, max_capacity = 1 }
  once    = { schedule = "at(2026-12-24T18:00:00)", min_capacity = 1, max_capacity = 1 }
}
"""
    )
    return str(path)


def test_scheduled_actions_are_simulated_and_explained(capsys, tmp_path, nightly):
    path = tmp_path / "quiet.csv"
    path.write_text("time,count\n" + "".join(f"{3600 * hour},3\n" for hour in range(48)))
    configured = ["--config", REFERENCE, "--config", nightly]
    text = printed(capsys, "simulate", "--trace", str(path), *configured, "--explain")
    assert (
        "scheduled: morning 2 times, night 2 times, once never; the trace begins on Monday 2024-01-01 00:00 UTC, "
        "between 1 and 1 instances\n"
    ) in text
    # 7 o'clock in UTC is 8 o'clock in Berlin in winter.
    assert text.count("  7:00:00  scheduled action morning: between 2 and 4 instances from now on\n") == 2
    assert text.count("  7:00:00  1 to 2  by scheduled action morning\n") == 2
    assert text.count(" 19:00:00  2 to 1  by scheduled action night\n") == 2
    # 48 hours of one, and 2 x 12 hours of one more; those that end are paid for until the endpoint is done with them.
    assert re.search(r"^instance-hours +72\.1 +72\.1$", text, re.M)
    assert "scheduled:" not in printed(capsys, "simulate", "--trace", str(path), "--config", REFERENCE)


def test_the_page_shows_what_is_scheduled(capsys, tmp_path, busy_hour, nightly):
    path = tmp_path / "page.html"
    arguments = ["--trace", busy_hour, "--config", REFERENCE, "--config", nightly, "--html", str(path)]
    printed(capsys, "simulate", *arguments)
    assert "scheduled: morning never, night never, once never" in path.read_text()


def test_what_does_not_take_a_schedule_says_so(capsys, nightly):
    text = printed(capsys, "cost", "--config", REFERENCE, "--config", nightly)
    assert "not in this table: the scheduled actions morning, night, once; `simulate` counts" in text
    assert "scheduled" not in printed(capsys, "cost", "--config", REFERENCE)
    assert main(["recommend", "--trace", "poisson", "--config", REFERENCE, "--config", nightly]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"{nightly}:1: autoscaling_scheduled_actions is set: ")


def test_the_same_seed_prints_the_same(capsys, busy_hour):
    arguments = ["simulate", "--trace", busy_hour, "--config", REFERENCE, "--explain", "--seed"]
    first = printed(capsys, *arguments, "1")
    assert printed(capsys, *arguments, "1") == first
    assert printed(capsys, *arguments, "2") != first


def test_a_profile_replaces_the_assumption(capsys, tmp_path, busy_hour):
    path = tmp_path / "slow.json"
    path.write_text('{"instance_type": "ml.m5.xlarge", "service_seconds": [0.9, 0.9], "lambda_seconds": 0}')
    text = printed(capsys, "simulate", "--trace", busy_hour, "--config", REFERENCE, "--profile", str(path))
    assert re.search(r"^p50 +9\d\d ms", text, re.M)
    # What the file does not say is still assumed.
    assert "assumed, not" not in text and "in the function 0 ms more, at a cold start 1000 ms more (assumed)" in text


def test_a_request_that_fails_is_slower_than_any(capsys, tmp_path, busy_hour):
    """Here a queue of none refuses the second of two at a time: more than 1 % of them all."""
    path = tmp_path / "narrow.json"
    content = {"instance_type": "ml.m5.xlarge", "service_seconds": [0.3, 0.3], "workers": 1, "queue_length": 0}
    path.write_text(json.dumps(content))
    text = printed(capsys, "simulate", "--trace", busy_hour, "--config", REFERENCE, "--profile", str(path))
    assert re.search(r"^p50 +400 ms", text, re.M) and re.search(r"^p99 +fails +fails$", text, re.M)


def test_cost_stands_beside_the_reference(capsys, tmp_path):
    more = tmp_path / "more.tfvars"
    more.write_text("autoscaling_max_capacity = 5\n")
    text = printed(capsys, "cost", "--config", REFERENCE, "--config", str(more))
    assert re.search(r"hosting ml\.m5\.xlarge +167\.90 +839\.50 +167\.90 +503\.70\n", text)
    assert "20% too high" in text
    assert "reference, 3" not in printed(capsys, "cost", "--config", REFERENCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--trace", "none.csv", "--config", REFERENCE],
            "--trace none.csv: no such file; give a CSV file or one of bursty, diurnal, poisson",
        ),
        (["--trace", "poisson", "--config", "none.tfvars"], "none.tfvars: cannot be read"),
        (["--trace", "poisson", "--config", REFERENCE, "--profile", "none.json"], "none.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, arguments, message):
    assert main(["simulate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["simulate", "--config", REFERENCE],
        ["simulate", "--trace", "poisson", "--config", REFERENCE, "--seed", "-1"],
        ["simulate", "--trace", "poisson", "--config", REFERENCE, "--slo-p99-ms", "nan"],
    ],
)
def test_a_wrong_option_is_status_2(arguments):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m capacity cost --config {REFERENCE} | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_it_runs_as_a_module_from_anywhere(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "capacity", "cost", "--config", REFERENCE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0 and "429.93" in ran.stdout, ran.stderr
