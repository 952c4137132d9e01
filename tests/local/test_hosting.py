"""Archives hosted as SageMaker would, under the hosting image's own server, with the project's own inference code."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local import hosting
from tests.colour_model import ROOT, model_files, pack, picture

pytestmark = pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two hosts on one machine at once, with different networks, sharing a state folder as in one account."""
    state = tmp_path_factory.mktemp("state")
    made = [
        hosting.EndpointHost(pack(state / f"model-{scale}.tar.gz", model_files(scale)), state, environment)
        for scale, environment in ((10.0, {}), (-10.0, {"SAGEMAKER_PROGRAM": "inference.py"}))
    ]
    failures = []

    def start(host):
        try:
            host.start()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(host,)) for host in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    members = [pid for host in made for pid in host.process.members()]
    assert len(members) == 4, "a front and a worker each"
    yield made
    for host in made:
        host.stop()
    assert not any(map(alive, members))
    assert not list((state / "endpoints").iterdir())
    assert not list((state / "processes").iterdir())


@pytest.mark.parametrize(("content_type", "format"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_each_host_answers_with_its_own_model(hosts, content_type, format):
    body = picture((255, 0, 0), format)
    for host, sign in zip(hosts, (1, -1), strict=True):
        status, headers, answer = host.invoke(body, content_type)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert np.allclose(json.loads(answer), [[sign * 10, 0, 0]], atol=0.15)


def test_accept_is_forwarded(hosts):
    status, _, answer = hosts[0].invoke(picture((0, 0, 255)), "image/png", "application/json;top_k=2")
    ((first, second),) = json.loads(answer)
    assert status == 200
    assert first["label"] == "blue"
    assert first["probability"] > 0.99 > second["probability"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"not a picture", "image/png", 400), (b"x", "text/plain", 415), (b"x" * 7_000_000, "image/png", 413)],
)
def test_refusals_come_through_with_their_status(hosts, body, content_type, status):
    assert hosts[0].invoke(body, content_type)[0] == status
    assert hosts[0].invoke(picture((9, 9, 9)), "image/png")[0] == 200


def test_only_loopback_listens(hosts):
    ports = {host.port for host in hosts}
    assert len(ports) == 2
    pids = {pid for host in hosts for pid in host.process.members()}
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link)
            if target.startswith("socket:"):
                inodes.add(target.removeprefix("socket:[").rstrip("]"))
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(tuple(fields[1].split(":")))
    assert listening == {("0100007F", f"{port:04X}") for port in ports}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"def model_fn(model_dir):\n    raise ValueError('these weights are broken')\n", "these weights are broken"),
        (b"import a_package_that_is_not_there\n", "No module named 'a_package_that_is_not_there'"),
        (None, "inference.py"),
    ],
)
def test_a_model_that_cannot_answer_fails_to_start_and_leaves_nothing(tmp_path, code, said):
    files = model_files() | {"code/inference.py": code}
    archive = pack(tmp_path / "model.tar.gz", {name: data for name, data in files.items() if data is not None})
    host = hosting.EndpointHost(archive, tmp_path / "state")
    with pytest.raises(hosting.HostingError) as error:
        host.start()
    assert str(error.value).startswith("model.tar.gz: ")
    assert said in str(error.value)
    assert not list((tmp_path / "state" / "endpoints").iterdir())
    assert not list((tmp_path / "state" / "processes").iterdir())


def test_too_little_time_fails_within_it_and_leaves_nothing(tmp_path):
    host = hosting.EndpointHost(pack(tmp_path / "model.tar.gz", model_files()), tmp_path / "state")
    with pytest.raises(hosting.HostingError, match=r"not ready within 0\.2 s"):
        host.start(timeout_seconds=0.2)
    assert host.process.poll() is not None
    assert not list((tmp_path / "state" / "endpoints").iterdir())


def test_nothing_survives_a_killed_account(tmp_path):
    pack(tmp_path / "model.tar.gz", model_files())
    script = """
import sys, time
from local.hosting import EndpointHost
host = EndpointHost(sys.argv[1], sys.argv[2])
host.start()
print(*host.process.members(), flush=True)
time.sleep(600)
"""
    account = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "model.tar.gz", tmp_path / "state"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    pids = [int(word) for word in account.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    account.kill()
    account.wait()
    account.stdout.close()
    waiting = threading.Event()
    for _ in range(3000):
        if not any(map(alive, pids)):
            break
        waiting.wait(0.01)
    assert not any(map(alive, pids))


@pytest.mark.fault
def test_a_server_that_died_is_named(tmp_path):
    host = hosting.EndpointHost(pack(tmp_path / "model.tar.gz", model_files()), tmp_path / "state")
    host.start()
    host.process.stop()
    with pytest.raises(hosting.HostingError, match="no answer from the model server"):
        host.invoke(picture((1, 2, 3)), "image/png")
    host.stop()
    host.stop()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.fault
@pytest.mark.parametrize(
    "member",
    [
        link("code/link", "/etc/passwd"),
        link("code/link", "model.onnx"),
        link("code/link", "model.onnx", tarfile.LNKTYPE),
        link("pipe", "", tarfile.FIFOTYPE),
        link("device", "", tarfile.CHRTYPE),
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("/absolute"),
        tarfile.TarInfo("code/../../outside"),
    ],
    ids=lambda member: member.name,
)
def test_an_unsafe_archive_is_refused_by_the_member(tmp_path, member):
    archive = pack(tmp_path / "model.tar.gz", {"model.onnx": b"x"}, member)
    with pytest.raises(hosting.HostingError) as error:
        hosting.unpack(archive, tmp_path / "into")
    assert repr(member.name) in str(error.value)
    assert not (tmp_path / "outside").exists()


name_part = st.sampled_from(["..", ".", "a", "b", "", "~", "a b", "ü"])


@pytest.mark.fault
@settings(deadline=None, max_examples=60)
@given(names=st.lists(st.lists(name_part, min_size=1, max_size=4).map("/".join).filter(bool), min_size=1, max_size=4))
def test_whatever_the_names_nothing_lands_outside(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("unpack")
    archive = pack(folder / "model.tar.gz", dict.fromkeys(names, b"x"))
    with contextlib.suppress(hosting.HostingError):
        hosting.unpack(archive, folder / "outer" / "into")
    assert {path.name for path in folder.iterdir()} == {"model.tar.gz", "outer"}
    assert {path.name for path in (folder / "outer").iterdir()} == {"into"}


@pytest.mark.fault
@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00cut short"])
def test_what_is_no_archive_is_named(tmp_path, data):
    (tmp_path / "model.tar.gz").write_bytes(data)
    with pytest.raises(hosting.HostingError, match=r"cannot unpack .*model\.tar\.gz"):
        hosting.unpack(tmp_path / "model.tar.gz", tmp_path / "into")


@pytest.mark.fault
def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(hosting.HostingError, match=r"cannot unpack .*none\.tar\.gz"):
        hosting.EndpointHost(tmp_path / "none.tar.gz", tmp_path / "state").start()
    assert not list((tmp_path / "state" / "endpoints").iterdir())


def test_a_missing_interpreter_says_what_to_install(tmp_path):
    host = hosting.EndpointHost(tmp_path / "model.tar.gz", tmp_path, python=tmp_path / "no-python")
    with pytest.raises(hosting.HostingError, match=r"model/container/requirements\.txt"):
        host.start()
