"""The endpoint's answers and failures, by botocore's real client against a SageMaker Runtime on loopback."""

import json
import threading
import time

import fetch
import handler
import pytest

PICTURE = fetch.Picture(b"\xff\xd8\xff-the-picture-", "image/jpeg")


@pytest.fixture
def invoke(runtime, lambda_context, monkeypatch):
    """A function that lets the runtime answer by `script` and returns the handler's answer, its body parsed."""
    monkeypatch.setattr(handler, "fetch_picture", lambda *_args, **_kwargs: PICTURE)

    def invoke(*script, milliseconds: int = 10_000, event=None):
        if script:
            runtime.script = list(script)
        answer = handler.lambda_handler(event or {"url": "https://pictures.test/"}, lambda_context(milliseconds))
        return answer["statusCode"], answer["headers"], json.loads(answer["body"])

    return invoke


def reply(body: bytes, **options):
    return lambda request: request.reply(200, body, **options)


def fail(status: int, code: str, **fields):
    return lambda request: request.fail(status, code, **fields)


LABELS = '[[{"label": "é", "probability": 0.75}]]'


@pytest.mark.parametrize("body", ["[[1, 2.5, -3e-7]]", "[]", "[[]]", "[[1],[2]]", LABELS])
def test_a_list_of_lists_is_passed_on_as_it_is(body, runtime, invoke, lambda_context):
    status, _, answer = invoke(reply(body.encode()))
    assert (status, answer) == (200, json.loads(body))


@pytest.mark.fault
@pytest.mark.parametrize(
    "body",
    [
        *("", "<html>", "[[1]", "[[NaN]]", "[[Infinity]]", "[[-Infinity]]", "{}", "1", "[1]", '"[[1]]"', "[[1], 2]"),
        *("[" * 100_000, "[[" + "1" * 5000 + "]]", "null"),
    ],
    ids=lambda body: body[:12] or "empty",
)
def test_anything_else_is_502(body, runtime, invoke):
    status, _, answer = invoke(reply(body.encode()))
    assert (status, answer["error"]["code"]) == (502, "endpoint_error")
    assert len(runtime.calls) == 1


@pytest.mark.fault
def test_bytes_that_are_no_text_are_502(invoke):
    assert invoke(reply(b'[["\xff"]]'))[0] == 502


@pytest.mark.fault
def test_an_answer_above_the_limit_is_502(invoke):
    status, _, answer = invoke(reply(b"[[" + b"1," * 600_000 + b"1]]"))
    assert (status, answer["error"]["code"]) == (502, "endpoint_error")
    assert "1048576 bytes" in answer["error"]["message"]


@pytest.mark.fault
def test_half_an_answer_is_502(invoke):
    status, _, answer = invoke(reply(b"[[1.5", length=500))
    assert (status, answer["error"]["code"]) == (502, "endpoint_error")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("failure", "status", "code", "attempts"),
    [
        (fail(424, "ModelError", OriginalStatusCode=500, OriginalMessage="trace"), 502, "endpoint_error", 1),
        (fail(424, "ModelError"), 502, "endpoint_error", 1),
        (fail(424, "ModelError", OriginalStatusCode=400), 415, "refused_by_model", 1),
        (fail(424, "ModelError", OriginalStatusCode=413), 413, "refused_by_model", 1),
        (fail(424, "ModelError", OriginalStatusCode=415), 415, "refused_by_model", 1),
        (fail(424, "ModelError", OriginalStatusCode=503), 503, "endpoint_throttled", 1),
        (fail(429, "ThrottlingException"), 503, "endpoint_throttled", 2),
        (fail(400, "ThrottlingException"), 503, "endpoint_throttled", 2),
        (fail(429, "ModelNotReadyException"), 503, "endpoint_throttled", 1),
        (fail(503, "ServiceUnavailable"), 503, "endpoint_throttled", 2),
        (fail(400, "ValidationError"), 502, "endpoint_error", 1),
        (fail(403, "AccessDeniedException"), 502, "endpoint_error", 1),
        (fail(500, "InternalFailure"), 502, "endpoint_error", 2),
        (fail(530, "InternalDependencyException"), 502, "endpoint_error", 1),
        (lambda request: request.reply(500, b"not json"), 502, "endpoint_error", 2),
        (lambda request: request.reset(), 502, "endpoint_error", 2),
    ],
)
def test_a_failure_has_its_status_and_number_of_attempts(failure, status, code, attempts, runtime, invoke, capsys):
    answered, headers, answer = invoke(failure)
    assert (answered, answer["error"]["code"]) == (status, code)
    assert headers.get("Retry-After") == ("1" if status == 503 else None)
    assert len(runtime.calls) == attempts
    assert all(call.body == PICTURE.content for call in runtime.calls)


NO_TEXT = b"\xff\xfe\x00"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("status", "code", "body", "answered"),
    [
        *((429, code, NO_TEXT, (503, "endpoint_throttled")) for code in ("ThrottlingException", None)),
        *((status, None, NO_TEXT, (502, "endpoint_error")) for status in (300, 403, 500)),
        *(
            (424, "ModelError", body, (502, "endpoint_error"))
            for body in (
                *(NO_TEXT, b"[]", b"null", b'"text"', b"5", b"[" * 100_000, b"1" * 5000, b'{"Message": 5}', b"<html>"),
                *(b'{"message": {"a": []}, "code": 7, "Code": [], "__type": null}', b'{"Message": "\\ud800"}', b""),
                *(b'{"OriginalStatusCode": {}, "OriginalMessage": 1}', b'{"OriginalStatusCode": "413"}'),
            )
        ),
        (400, None, b'{"code": 5, "message": []}', (502, "endpoint_error")),
        (400, None, b'{"code": "ThrottlingException", "message": 1}', (503, "endpoint_throttled")),
    ],
    ids=lambda value: value[:20].decode(errors="replace") or "empty" if isinstance(value, bytes) else None,
)
def test_an_error_that_is_not_as_aws_writes_them_has_its_status(status, code, body, answered, invoke, log_lines):
    headers = {"x_amzn_ErrorType": code} if code else {}
    given, _, answer = invoke(lambda request: request.reply(status, body, **headers))
    assert (given, answer["error"]["code"]) == answered
    assert [line["reason"] for line in log_lines()] == ["endpoint_error"]


@pytest.mark.fault
@pytest.mark.parametrize(
    "failure", [fail(500, "InternalFailure"), fail(429, "ThrottlingException"), lambda r: r.reset()]
)
def test_a_passing_failure_is_tried_once_more(failure, runtime, invoke):
    status, _, answer = invoke(failure, reply(b"[[1.0]]"))
    assert (status, answer, len(runtime.calls)) == (200, [[1.0]], 2)


def test_a_missing_permission_is_logged_by_its_code(invoke, log_lines):
    invoke(fail(403, "AccessDeniedException"))
    [line] = log_lines()
    assert line["level"] == "ERROR"
    assert "AccessDeniedException" in line["message"]


def test_the_containers_message_is_neither_sent_nor_logged(invoke, log_lines):
    body = {"OriginalStatusCode": 500, "OriginalMessage": "Traceback pa55word", "LogStreamArn": "arn:aws:logs:stream"}
    _, _, answer = invoke(lambda request: request.fail(424, "ModelError", **body))
    [line] = log_lines()
    assert "arn:aws:logs:stream" in line["message"]
    assert "pa55word" not in json.dumps([answer, line])


@pytest.mark.fault
@pytest.mark.parametrize("start", ["silent", "headers", "body"])
def test_a_slow_endpoint_is_504_before_the_functions_own_timeout(start, runtime, invoke):
    """The runtime drips for longer than any wait of botocore's, so only a deadline over all of it can answer 504."""
    released = threading.Event()

    def slow(request):
        if start == "body":
            request.reply(200, b"[[", length=5000)
        while not released.wait(0.05):
            try:
                request.wfile.write({"silent": b"", "headers": b"H", "body": b"1"}[start])
            except OSError:
                return
        request.close_connection = True

    try:
        status, _, answer = invoke(slow, milliseconds=1500)
        assert (status, answer["error"]["code"]) == (504, "endpoint_timeout")
        assert len(runtime.calls) == 1
    finally:
        released.set()


@pytest.mark.fault
def test_a_call_that_nobody_waits_for_does_not_send_the_picture_again(runtime, invoke, monkeypatch, new_client):
    monkeypatch.setattr(handler, "ENDPOINT_SECONDS", 1.5)
    new_client()
    idle, released = [], threading.Event()
    monkeypatch.setattr(fetch, "_idle", idle)
    try:
        status, _, _ = invoke(lambda _request: released.wait(5), milliseconds=1500)
        assert status == 504
        given_up = time.monotonic() + 10
        while not idle and time.monotonic() < given_up:
            released.wait(0.02)
        assert idle, "the call that was given up never ended"
        assert len(runtime.calls) == 1
    finally:
        released.set()


@pytest.mark.fault
def test_a_silent_endpoint_is_tried_again_while_there_is_time(runtime, invoke, monkeypatch, new_client):
    monkeypatch.setattr(handler, "ENDPOINT_SECONDS", 1.0)
    new_client()
    released = threading.Event()
    try:
        status, _, answer = invoke(lambda _request: released.wait(3), reply(b"[[1.0]]"))
        assert (status, answer, len(runtime.calls)) == (200, [[1.0]], 2)
    finally:
        released.set()


@pytest.mark.fault
def test_an_endpoint_that_is_not_there_is_502(runtime, invoke, monkeypatch, new_client):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    new_client()
    status, _, answer = invoke()
    assert (status, answer["error"]["code"]) == (502, "endpoint_error")


def test_the_endpoint_is_told_the_requests_id_and_the_metrics_tell_it_too(invoke, runtime, capsys):
    assert invoke()[0] == 200
    assert runtime.calls[0].headers["X-Amzn-SageMaker-Inference-Id"] == "0f0f0f0f-request"
    [metrics] = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "EndpointLatency" in line]
    assert metrics["function_request_id"] == "0f0f0f0f-request"


def test_no_read_waits_longer_than_the_caller(runtime, invoke, monkeypatch):
    """The call that was given up ends then too, and not when the endpoint's own 60 s are over."""
    idle, released = [], threading.Event()
    monkeypatch.setattr(fetch, "_idle", idle)
    try:
        assert invoke(lambda _request: released.wait(20), milliseconds=1000)[0] == 504
        given_up = time.monotonic() + 10
        while not idle and time.monotonic() < given_up:
            released.wait(0.02)
        assert idle
    finally:
        released.set()


@pytest.mark.fault
def test_no_time_left_is_504_without_a_call(runtime, lambda_context, names, connections):
    answer = handler.lambda_handler({"url": "https://pictures.test/"}, lambda_context(100))
    assert answer["statusCode"] == 504
    assert (runtime.calls, connections) == ([], [])


def test_the_fetch_leaves_the_endpoint_its_share_of_the_time(runtime, lambda_context, monkeypatch):
    left = {}

    def fetch_picture(_url, *, deadline, **_options):
        left["seconds"] = deadline - time.monotonic()
        return PICTURE

    monkeypatch.setattr(handler, "fetch_picture", fetch_picture)
    for milliseconds, most in ((5_500, 3.0), (60_000, handler.MAX_FETCH_SECONDS)):
        assert (
            handler.lambda_handler({"url": "https://pictures.test/"}, lambda_context(milliseconds))["statusCode"] == 200
        )
        assert 0 < left["seconds"] <= most


def test_one_client_serves_the_process(runtime, invoke, new_client):
    new_client()
    for _ in range(3):
        assert invoke()[0] == 200
    assert handler.endpoint_client.cache_info().misses == 1
    assert len({call.headers["Host"] for call in runtime.calls}) == 1
