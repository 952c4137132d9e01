"""Functions run as on Lambda: real processes under the real runtime client."""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from local import runtime

ROOT = Path(__file__).parents[2]
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:bird"

HANDLER = """
import json, logging, os, sys, time
print("starting up")
count = 0

def handle(event, context):
    global count
    count += 1
    kind = event.get("kind")
    if kind == "environment":
        return dict(os.environ)
    if kind == "context":
        return {
            "arn": context.invoked_function_arn, "name": context.function_name, "version": context.function_version,
            "memory": context.memory_limit_in_mb, "request": context.aws_request_id,
            "remaining": context.get_remaining_time_in_millis(),
            "client": context.client_context and context.client_context.custom,
        }
    if kind == "raise":
        raise KeyError("no such bird")
    if kind == "exit":
        print("last words", flush=True)
        os._exit(event["status"])
    if kind == "signal":
        os.kill(os.getpid(), event["number"])
    if kind == "big":
        return "x" * (event["bytes"] - 2)
    if kind == "set":
        return {1, 2}
    if kind == "sleep":
        time.sleep(600)
    if kind == "gate":
        open(event["arrived"] + str(os.getpid()), "w").close()
        while not os.path.exists(event["gate"]):
            time.sleep(0.01)
    if kind == "log":
        print("to stdout")
        print("to stderr", file=sys.stderr)
        logging.getLogger().warning("to the logger")
    return {"count": count, "pid": os.getpid(), "event": event}
"""


def package(source: str = HANDLER, **files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("handler.py", source)
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def make(tmp_path):
    """FunctionHost with defaults; its log events are in `.events`."""
    hosts = []

    def make(zip_bytes=None, environment=None, timeout_seconds=60, max_environments=2, **more):
        events = []
        host = runtime.FunctionHost(
            zip_bytes or package(), "handler.handle", environment or {}, timeout_seconds, 256, max_environments,
            function_arn=ARN, version="7", log_sink=events.append, state_dir=tmp_path, **more,
        )  # fmt: skip
        host.events = events
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        host.stop()
    assert not list(tmp_path.glob("processes/*")), "a process outlived its host"
    assert not list(tmp_path.glob("functions/*")), "an unpacked package outlived its host"


def invoke(host, event, **more):
    invocation = host.invoke(json.dumps(event).encode(), **more)
    assert invocation.status == 200
    return invocation.function_error, json.loads(invocation.payload)


def test_an_environment_is_reused(make):
    host = make()
    error, first = invoke(host, {"a": [1, "ü"]})
    _, second = invoke(host, {})
    assert error is None
    assert first["event"] == {"a": [1, "ü"]}
    assert (first["count"], second["count"]) == (1, 2)
    assert first["pid"] == second["pid"]


def test_an_empty_payload_is_an_empty_event(make):
    assert json.loads(make().invoke(b"").payload)["event"] == {}


def test_the_environment_is_what_was_given_and_what_lambda_sets(make, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    _, seen = invoke(make(environment={"ENDPOINT_NAME": "e", "AWS_ACCESS_KEY_ID": "testing"}), {"kind": "environment"})
    assert seen.pop("ENDPOINT_NAME") == "e"
    assert seen.pop("AWS_ACCESS_KEY_ID") == "testing"
    assert seen["AWS_REGION"] == seen["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "bird"
    assert seen["_HANDLER"] == "handler.handle"
    assert Path(seen["LAMBDA_TASK_ROOT"], "handler.py").name == "handler.py"
    others = {name for name in seen if not name.startswith(("AWS_LAMBDA_", "LAMBDA_"))}
    assert others == {
        "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_REGION", "LANG", "PATH", "PYTHONPATH", "TZ", "_HANDLER",
        "_X_AMZN_TRACE_ID",
    }  # fmt: skip


def test_the_context(make):
    host = make(timeout_seconds=30)
    _, seen = invoke(host, {"kind": "context"}, invoked_arn=f"{ARN}:live", client_context='{"custom": {"a": "b"}}')
    assert 0 < seen.pop("remaining") <= 30_000
    assert len(seen.pop("request")) == 36
    assert seen == {"arn": f"{ARN}:live", "name": "bird", "version": "7", "memory": "256", "client": {"a": "b"}}


def test_only_the_package_and_the_runtime_can_be_imported(make):
    found = make(
        package(
            "import boto3, botocore, awslambdaric, mine\ndef handle(e, c): return mine.NAME",
            **{"mine.py": "NAME = 'me'"},
        )
    )
    assert invoke(found, {}) == (None, "me")
    missing = make(package("import hypothesis"))  # installed here, and not on Lambda
    error, body = invoke(missing, {})
    assert error == "Unhandled"
    assert body["errorType"] == "Runtime.ImportModuleError"
    assert body["errorMessage"] == "Unable to import module 'handler': No module named 'hypothesis'"


def test_the_package_comes_before_the_runtime(make):
    host = make(package("import boto3\ndef handle(e, c): return boto3.NAME", **{"boto3.py": "NAME = 'ours'"}))
    assert invoke(host, {}) == (None, "ours")


def test_a_handler_exception(make):
    host = make()
    _, before = invoke(host, {})
    error, body = invoke(host, {"kind": "raise"})
    assert error == "Unhandled"
    assert body["errorType"] == "KeyError"
    assert body["errorMessage"] == "'no such bird'"
    assert "handler.py" in body["stackTrace"][0]
    _, after = invoke(host, {})
    assert after["pid"] == before["pid"], "an exception does not cost the environment"


def test_an_answer_that_is_no_json(make):
    error, body = invoke(make(), {"kind": "set"})
    assert (error, body["errorType"]) == ("Unhandled", "Runtime.MarshalError")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "exit", "status": 3}, "Runtime exited with error: exit status 3"),
        ({"kind": "exit", "status": 0}, "Runtime exited without providing a reason"),
        ({"kind": "signal", "number": 9}, "Runtime exited with error: signal: killed"),
    ],
)
def test_a_crash(make, event, message):
    host = make()
    _, before = invoke(host, {})
    error, body = invoke(host, event)
    assert (error, body["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert body["errorMessage"].startswith("RequestId: ")
    assert body["errorMessage"].endswith(f" Error: {message}")
    _, after = invoke(host, {})
    assert (after["count"], after["pid"] != before["pid"]) == (1, True), "a new environment"


def test_the_last_words_of_a_crash_are_in_the_log(make):
    host = make()
    invoke(host, {"kind": "exit", "status": 1})
    assert "last words" in host.events[-1]


def test_a_crash_while_starting(make):
    error, body = invoke(make(package("import os; os._exit(5)")), {})
    assert (error, body["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert "exit status 5" in body["errorMessage"]


def test_a_missing_handler(make):
    _, body = invoke(make(package("x = 1")), {})
    assert body["errorType"] == "Runtime.HandlerNotFound"


@pytest.mark.fault
def test_a_timeout_kills_the_environment(make, tmp_path):
    host = make(timeout_seconds=1)
    _, before = invoke(host, {})
    error, body = invoke(host, {"kind": "sleep"})
    assert error == "Unhandled"
    assert body["errorType"] == "Sandbox.Timedout"
    assert body["errorMessage"].endswith(" Error: Task timed out after 1.00 seconds")
    assert any("Task timed out after 1.00 seconds" in line for line in host.events[-1])
    with pytest.raises(ProcessLookupError):
        os.kill(before["pid"], 0)
    assert invoke(host, {})[1]["count"] == 1


def test_the_largest_answer_and_one_byte_more(make):
    host = make()
    limit = runtime.RESPONSE_LIMIT_BYTES
    assert len(host.invoke(json.dumps({"kind": "big", "bytes": limit}).encode()).payload) == limit
    error, body = invoke(host, {"kind": "big", "bytes": limit + 1})
    assert (error, body["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")
    assert f"({limit + 1} bytes)" in body["errorMessage"]
    assert invoke(host, {})[1]["count"] == 1, "the runtime client does not survive it, as on Lambda"


def test_the_largest_request_and_one_byte_more(make):
    host = make(package("def handle(e, c): return len(e)"))
    largest = b'"' + b"x" * (runtime.REQUEST_LIMIT_BYTES - 2) + b'"'
    assert host.invoke(largest).payload == str(runtime.REQUEST_LIMIT_BYTES - 2).encode()
    with pytest.raises(runtime.RequestTooLarge):
        host.invoke(largest + b" ")


@pytest.mark.fault
def test_the_reserved_concurrency_is_kept(make, tmp_path):
    host = make(max_environments=2)
    event = {"kind": "gate", "arrived": str(tmp_path / "arrived-"), "gate": str(tmp_path / "gate")}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(invoke(host, event))) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting = threading.Event()
    for _ in range(3000):
        if len(list(tmp_path.glob("arrived-*"))) == 2:
            break
        waiting.wait(0.01)
    with pytest.raises(runtime.TooManyRequests):
        invoke(host, {})
    (tmp_path / "gate").touch()
    for thread in threads:
        thread.join(60)
    assert len({body["pid"] for _, body in answers}) == 2, "two environments at once"
    assert invoke(host, {})[1]["pid"] in {body["pid"] for _, body in answers}, "and free again"


def test_no_concurrency_at_all(make):
    with pytest.raises(runtime.TooManyRequests):
        make(max_environments=0).invoke(b"{}")


def test_the_log(make):
    host = make()
    invoke(host, {}, request_id="first")
    invocation = host.invoke(b'{"kind": "log"}', request_id="second")
    cold, warm = host.events
    assert cold[0] == "starting up"
    assert cold[1] == "START RequestId: first Version: 7"
    assert "Init Duration" in cold[-1]
    assert warm[0] == "START RequestId: second Version: 7"
    assert {"to stdout", "to stderr"} < set(warm)
    assert any(line.startswith("[WARNING]") and line.endswith("to the logger") for line in warm)
    assert warm[-2] == "END RequestId: second"
    assert warm[-1].startswith("REPORT RequestId: second\tDuration: ")
    assert "Memory Size: 256 MB" in warm[-1]
    assert "Init Duration" not in warm[-1]
    assert invocation.log_tail == "\n".join(warm)


def test_a_traceback_is_one_event(make):
    host = make()
    invoke(host, {"kind": "raise"})
    (event,) = [line for line in host.events[0] if "no such bird" in line]
    assert event.startswith("[ERROR] KeyError")
    assert "handler.py" in event


def test_the_log_tail_is_the_last_4_kb(make):
    host = make(package("def handle(e, c):\n  for i in range(1000): print('line', i)"))
    tail = host.invoke(b"{}").log_tail
    assert len(tail.encode()) <= 4096
    assert "line 999\nEND" in tail
    assert "line 1\n" not in tail


def test_stop_ends_a_running_invocation(make, tmp_path):
    host = make()
    event = {"kind": "gate", "arrived": str(tmp_path / "arrived-"), "gate": str(tmp_path / "never")}
    answers = []
    thread = threading.Thread(target=lambda: answers.append(invoke(host, event)))
    thread.start()
    waiting = threading.Event()
    for _ in range(3000):
        if list(tmp_path.glob("arrived-*")):
            break
        waiting.wait(0.01)
    host.stop()
    thread.join(60)
    ((error, body),) = answers
    assert (error, body["errorType"]) == ("Unhandled", "Runtime.ExitError")
    with pytest.raises(RuntimeError, match="stopped"):
        host.invoke(b"{}")


@pytest.mark.parametrize("broken", [b"no zip", package()[:-30], package()[:40]])
def test_a_broken_package_is_refused(make, broken):
    with pytest.raises(runtime.InvalidPackage, match="Could not unzip"):
        make(broken)


def test_a_package_cannot_write_outside(make, tmp_path):
    make(package(**{"../../../outside.py": "", "/absolute.py": ""}))
    assert not list(tmp_path.rglob("../outside.py"))
    assert not Path("/absolute.py").exists()
    assert {path.parent.name for path in tmp_path.rglob("outside.py")} == {"task"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_environments_end_with_their_creator(tmp_path):
    (tmp_path / "function.zip").write_bytes(package())
    script = f"""
import pathlib, sys, time
from local.runtime import FunctionHost
state = pathlib.Path({str(tmp_path)!r})
package = (state / "function.zip").read_bytes()
host = FunctionHost(package, "handler.handle", {{}}, 60, 128, 1, function_arn={ARN!r}, state_dir=state)
print(host.invoke(b"{{}}").payload.decode(), flush=True)
time.sleep(600)
"""
    creator = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    pid = json.loads(creator.stdout.readline())["pid"]
    os.kill(pid, 0)
    creator.kill()
    creator.wait()
    creator.stdout.close()
    waiting = threading.Event()
    for _ in range(3000):
        if not Path(f"/proc/{pid}").exists():
            break
        waiting.wait(0.01)
    assert not Path(f"/proc/{pid}").exists()
