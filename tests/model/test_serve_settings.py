"""What the hosting image's server makes of its environment and of a request's headers."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "model" / "container"))

import front
import settings


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    (folder / "model" / "code").mkdir(parents=True)
    (folder / "model" / "code" / "inference.py").touch()
    return str(folder)


@pytest.mark.parametrize(
    ("cores", "given", "workers", "threads", "places"),
    [
        (4, {}, 4, 1, 128),
        (4, {"SERVING_MODE": "latency"}, 1, 4, 32),
        (1, {"SERVING_MODE": "latency"}, 1, 1, 32),
        (4, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, 2, 2, 64),
        (4, {"SAGEMAKER_MODEL_SERVER_WORKERS": "8"}, 8, 1, 256),
        (4, {"SERVING_MODE": "latency", "OMP_NUM_THREADS": "3", "SERVING_QUEUE_LENGTH": "5"}, 1, 3, 5),
        (4, {"SERVING_MODE": "", "OMP_NUM_THREADS": ""}, 4, 1, 128),
    ],
)
def test_the_cores_are_shared_out_as_the_mode_says(base, cores, given, workers, threads, places):
    found = settings.settings_from({"SAGEMAKER_BASE_DIR": base} | given, cores)
    assert (found.workers, found.threads, found.queue_length) == (workers, threads, places)
    assert f"{workers} workers of {threads} threads, queue of {places}" in str(found)


@given(value=st.text(max_size=8))
def test_whatever_is_no_whole_number_is_refused_by_name_and_value(base, value):
    assume(re.fullmatch("[0-9]*", value) is None or int(value or 1) not in range(1, 1_000_001))
    variables = {"SAGEMAKER_BASE_DIR": base, "SERVING_QUEUE_LENGTH": value}
    with pytest.raises(settings.Mistake) as mistake:
        settings.settings_from(variables, 2)
    assert f"SERVING_QUEUE_LENGTH={value}" in str(mistake.value)


def test_hyperthreads_count_once_and_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    for cpu in range(4):
        (tmp_path / str(cpu)).write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.setattr(settings, "TOPOLOGY", f"{tmp_path}/{{}}")
    monkeypatch.setattr(settings, "CPU_QUOTA", tmp_path / "cpu.max")
    assert settings.physical_cores() == 2
    for quota, cores in (("max 100000", 2), ("150000 100000", 2), ("100000 100000", 1), ("5000 100000", 1)):
        settings.CPU_QUOTA.write_text(f"{quota}\n")
        assert settings.physical_cores() == cores
    # Where the machine does not say, each CPU is a core.
    monkeypatch.setattr(settings, "TOPOLOGY", f"{tmp_path}/none-{{}}")
    settings.CPU_QUOTA.unlink()
    assert settings.physical_cores() == 4


header = st.text(st.characters(codec="latin-1"), max_size=100)


@given(first=header, second=header)
def test_an_id_is_short_and_visible_whatever_is_sent(first, second):
    found = front.request_id_of({"x-amzn-sagemaker-inference-id": first, "x-request-id": second})
    assert 1 <= len(found) <= 64 and found.isascii() and all("!" <= character <= "~" for character in found)
    given = first or second
    if given and all("!" <= character <= "~" for character in given):
        assert found == given[:64]


@given(value=st.text(max_size=50))
def test_no_value_ends_a_header_line(value):
    sent = front.header_value(value)
    assert not set(sent) & {0, 10, 13} and len(sent) == len(value)
