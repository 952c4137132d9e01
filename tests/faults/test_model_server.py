"""The model server killed while it answers. Of its workers alone it is in tests/model/test_serve.py."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local import hosting
from tests.colour_model import model_files, pack, picture

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting"),
]

# The project's own inference, which waits as long as a file is there.
WAITS = b"""
import os, pathlib, time
_predict_fn = predict_fn


def predict_fn(pictures, model):
    held = pathlib.Path(os.environ["HELD"])
    while held.exists():
        held.with_name("begun").touch()
        time.sleep(0.01)
    return _predict_fn(pictures, model)
"""


def until(condition) -> None:
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_who_waits_for_a_killed_server_is_told_and_another_start_serves(tmp_path):
    held = tmp_path / "held"
    files = model_files()
    archive = pack(tmp_path / "model.tar.gz", files | {"code/inference.py": files["code/inference.py"] + WAITS})
    host = hosting.EndpointHost(archive, tmp_path / "state", {"HELD": str(held)})
    host.start()
    try:
        members = host.process.members()
        with ThreadPoolExecutor(2) as threads:
            held.touch()
            waiting = [threads.submit(host.invoke, picture((255, 0, 0)), "image/png") for _ in range(2)]
            until((tmp_path / "begun").exists)
            os.kill(members[0], signal.SIGKILL)
            for answer in waiting:  # the one in work, and the one behind it
                with pytest.raises(hosting.HostingError, match=r"model\.tar\.gz: no answer from the model server"):
                    answer.result(30)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members))
        held.unlink()
        host.stop()
        host.start()
        assert host.invoke(picture((255, 0, 0)), "image/png")[0] == 200
    finally:
        host.stop()
