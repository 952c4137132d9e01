"""The recommendation: it keeps the SLO, is the cheapest around, and is a file that Terraform takes."""

import contextlib
import io
import json
import math
import re
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity import configuration, prices, profile, report, search, tfvars, trace
from capacity.__main__ import REFERENCE, main
from capacity.bill import bill, total, usage
from capacity.recommend import recommend
from capacity.search import Aim, Exact, neighbours
from capacity.shapes import diurnal
from capacity.simulation import ANSWERED, REFUSED, simulate
from capacity.system import system
from capacity.target_tracking import ScaleIn

FIGURES = [
    "autoscaling_max_capacity",
    "autoscaling_min_capacity",
    "autoscaling_scale_in_cooldown_seconds",
    "autoscaling_scale_out_cooldown_seconds",
    "autoscaling_target_invocations_per_minute",
    "lambda_provisioned_concurrency",
    "lambda_reserved_concurrency",
]


@pytest.fixture(scope="module")
def rush(tmp_path_factory) -> Path:
    """An hour and a half, of which the middle third wants more instances than the others."""
    rates = [3] * 30 + [26] * 30 + [3] * 30
    path = tmp_path_factory.mktemp("trace") / "rush.csv"
    path.write_text("time,count\n" + "".join(f"{60 * minute},{60 * rate}\n" for minute, rate in enumerate(rates)))
    return path


def recommended(*arguments: str) -> tuple[str, str]:
    """What is printed, and what is said beside it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["recommend", *arguments]) == 0
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def for_rush(rush) -> tuple[Path, str]:
    """The variable file for the rush, and what was said beside it."""
    written, said = recommended("--trace", str(rush), "--slo-p99-ms", "600", "--max-throttled", "0.02")
    path = rush.with_name("capacity.auto.tfvars")
    path.write_text(written)
    return path, said


def test_it_keeps_the_slo_under_both_rules(rush, for_rush):
    path, _ = for_rush
    configured = configuration.read([REFERENCE, path])
    requests, measured, price_list = trace.read(rush, 0), profile.assumed("ml.m5.xlarge"), prices.read()
    services = measured.draw(np.random.default_rng([0, 1]), len(requests.arrivals))
    for rule in get_args(ScaleIn):
        outcome = simulate(requests, services, system(configured, measured, rule), 0)
        refused = outcome.status == REFUSED
        latency = np.where(outcome.status == ANSWERED, outcome.latency, np.inf)[~refused]
        assert np.percentile(latency, 99) <= 0.6
        assert refused.mean() <= 0.02
        # What is written beside it is so.
        usd = f"{total(bill(configured, price_list, usage(outcome))):,.2f}"
        assert (
            usd in re.search(r"Simulated, request by request.*instance-hours", path.read_text().replace("\n# ", " "))[0]
        )
    assert configured.autoscaling_min_capacity < configured.autoscaling_max_capacity


def test_nothing_beside_it_keeps_the_slo_for_less():
    """A neighbour that is cheaper breaks something; this is what the comments say."""
    requests, aim, price_list = diurnal(0, 8, 4 * 3600.0), Aim(0.4, 0.01), prices.read()
    profiles = {"ml.m5.xlarge": profile.assumed("ml.m5.xlarge")}
    exact = Exact(requests, profiles, price_list, aim, 0)
    made = recommend(requests, configuration.read([REFERENCE]), profiles, price_list, aim, exact, lambda line: None)
    assert made.winner.keeps(aim)
    for _, other in neighbours(made.winner, profiles):
        beside = exact(other)
        assert not beside.keeps(aim) or beside.cost > made.winner.cost * 0.999 - 0.01


def test_each_figure_has_its_evidence_and_nothing_else_is_printed(for_rush):
    path, said = for_rush
    assert sorted(tfvars.read([path])) == FIGURES
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        assert re.match(r"$|# \S|\w+ = \S+$", line), line
        if line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line
    assert "tried by intervals" in said and "holds in the exact simulation" in said


def test_a_short_trace_has_evidence_for_each_figure_too(tmp_path):
    """Five requests: there the p99 is the slowest of them, and one reserved environment is the least there can be."""
    path = tmp_path / "few.csv"
    path.write_text("time,count\n0,5\n")
    written, _ = recommended("--trace", str(path))
    for block in written.split("\n\n")[1:]:
        assert re.match(r"# (Unchanged|Was \S+)\. \S", block), block
    assert "At 0: p99 1," in written  # a cold start


def test_evidence_by_intervals_where_the_trace_is_long(monkeypatch, rush):
    monkeypatch.setattr(search, "EXACT_REQUESTS", 1)  # as if one simulation took all the time there is
    written, _ = recommended("--trace", str(rush), "--slo-p99-ms", "600", "--max-throttled", "0.02")
    assert re.search(r"At \d+ \(by intervals\)", written)
    assert not re.search(r"# (Unchanged|Was \S+)\.\n[a-z]", written)


def test_the_same_seed_writes_the_same(rush, for_rush):
    written, _ = recommended("--trace", str(rush), "--slo-p99-ms", "600", "--max-throttled", "0.02")
    assert written == for_rush[0].read_text()


def test_the_cheaper_instance_type_that_keeps_the_slo(tmp_path, rush):
    def write(instance_type: str, seconds: float) -> str:
        path = tmp_path / f"{instance_type}.json"
        content = {"instance_type": instance_type, "service_seconds": [seconds * 0.8, seconds, seconds * 1.2]}
        path.write_text(json.dumps(content))
        return str(path)

    slow, fast = write("ml.m5.xlarge", 0.3), write("ml.c7i.xlarge", 0.06)
    written, _ = recommended("--trace", str(rush), "--profile", slow, "--profile", fast)
    path = tmp_path / "capacity.auto.tfvars"
    path.write_text(written)
    assert tfvars.read([path])["endpoint_instance_type"].value == "ml.c7i.xlarge"
    assert "With ml.m5.xlarge" in written


def test_nothing_keeps_the_slo(capsys, rush):
    assert main(["recommend", "--trace", str(rush), "--slo-p99-ms", "150"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert "Nothing keeps a p99 of 150 ms" in last and re.search(r"Closest come .* a p99 of 2\d\d ms", last)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "none.csv"], "none.csv: no such file"),
        (["--trace", "poisson", "--profile", "none.json"], "none.json: cannot be read"),
        (["--trace", "poisson", "--config", "none.tfvars"], "none.tfvars: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, arguments, message):
    assert main(["recommend", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


@given(late=st.integers(0, 40), good=st.integers(0, 3000))
def test_the_p99_keeps_the_slo_where_at_most_one_in_a_hundred_is_late(late, good):
    latency = np.array([0.1] * good + [math.inf] * late)
    assert (report.quantile(latency, 0.99) <= 0.5) == (late + good > 0 and 100 * late <= late + good)


@pytest.mark.parametrize("share", ["1", "-0.1", "nan", "all"])
def test_throttled_is_a_share(share):
    with pytest.raises(SystemExit) as raised:
        main(["recommend", "--trace", "poisson", "--max-throttled", share])
    assert raised.value.code == 2


def test_a_file_name_sets_nothing(tmp_path):
    """What the user names goes into comments, a line break in it too."""
    path = tmp_path / "a\nautoscaling_max_capacity = 99\n.csv"
    path.write_text("time,count\n" + "".join(f"{60 * minute},60\n" for minute in range(60)))
    file = tmp_path / "capacity.auto.tfvars"
    file.write_text(recommended("--trace", str(path))[0])
    assert tfvars.read([file])["autoscaling_max_capacity"].value < 99


def test_terraform_formats_it_so(for_rush):
    ran = subprocess.run(["terraform", "fmt", "-check", "-diff", str(for_rush[0])], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
