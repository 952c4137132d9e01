"""Events in, well-formed answers out: every shape of event, every refusal, and what the log lines may hold."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import fetch
import handler
import pytest

URL = "https://pictures.test/a.png?token=secret"
PICTURE = fetch.Picture(b"\x89PNG\r\n\x1a\n-the-picture-", "image/png")


@pytest.fixture
def fetched(monkeypatch):
    """The URLs that the handler fetches; every fetch yields PICTURE (fetching itself is tested over real TLS)."""
    urls = []

    def fetch_picture(url, *, deadline, max_bytes, private_hosts):
        urls.append(url)
        return PICTURE

    monkeypatch.setattr(handler, "fetch_picture", fetch_picture)
    return urls


def http_event(body, **fields) -> dict:
    """What a function URL or an API Gateway HTTP API sends (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": "POST", "path": "/"}, "requestId": "id", "stage": "$default"},
        "body": body,
        "isBase64Encoded": False,
        **fields,
    }


def encoded(body: str) -> dict:
    return http_event(base64.b64encode(body.encode()).decode(), isBase64Encoded=True)


def error_of(answer: dict) -> dict:
    assert answer["headers"]["Content-Type"] == "application/json"
    body = json.loads(answer["body"])
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return body["error"]


@pytest.mark.parametrize(
    "wrap", [lambda event: event, lambda e: http_event(json.dumps(e)), lambda e: encoded(json.dumps(e))]
)
@pytest.mark.parametrize(("top_k", "accept"), [(None, "application/json"), (3, "application/json;top_k=3")])
def test_every_shape_of_event_reaches_the_endpoint(wrap, top_k, accept, fetched, runtime, lambda_context):
    event = wrap({"url": URL} | ({"top_k": top_k} if top_k else {}))
    answer = handler.lambda_handler(event, lambda_context())
    assert (answer["statusCode"], answer["body"]) == (200, "[[0.25, -1.5]]")
    assert answer["headers"] == {"Content-Type": "application/json", "X-Request-Id": "0f0f0f0f-request"}
    assert fetched == [URL]
    [call] = runtime.calls
    assert call.path == "/endpoints/image-classifier/invocations"
    assert (call.body, call.headers["Content-Type"], call.headers["Accept"]) == (PICTURE.content, "image/png", accept)


@pytest.mark.parametrize(
    "event",
    [
        *(None, [], "https://pictures.test/", 1, {}, {"url": None}, {"url": ""}, {"url": 1}, {"url": [URL]}),
        *(http_event(None), http_event(""), http_event("[]"), http_event("null"), http_event("{"), http_event("{}")),
        *(http_event('"https://pictures.test/"'), http_event("[" * 100_000), http_event("1" * 5000), http_event({})),
        *(http_event("not base64!", isBase64Encoded=True), http_event("é", isBase64Encoded=True)),
        *(http_event("/w==", isBase64Encoded=True), http_event(json.dumps({"link": URL}))),
        {"version": "2.0", "requestContext": {}, "url": URL},
        *({"url": URL, "top_k": k} for k in (0, -1, 1001, True, False, 1.0, float("nan"), "3", [3], {}, 10**400)),
    ],
    ids=lambda event: repr(event)[:40],
)
def test_no_usable_request_is_400_and_nothing_else_happens(event, fetched, runtime, lambda_context):
    answer = handler.lambda_handler(event, lambda_context())
    assert answer["statusCode"] == 400
    assert error_of(answer)["code"] == "bad_request"
    assert (fetched, runtime.calls) == ([], [])


@pytest.mark.parametrize(
    "url", ["http://pictures.test/", "file:///etc/passwd", "https://127.0.0.1/", "https://169.254.169.254/latest"]
)
def test_forbidden_url_is_403_and_logged_with_its_reason(url, runtime, names, connections, lambda_context, log_lines):
    answer = handler.lambda_handler({"url": url}, lambda_context())
    assert answer["statusCode"] == 403
    assert error_of(answer)["code"] == "fetch_denied"
    [line] = log_lines()
    assert (line["level"], line["reason"]) == ("WARNING", "fetch_denied")
    assert line["function_request_id"] == "0f0f0f0f-request"
    assert (connections, runtime.calls) == ([], [])


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        *((fetch.FetchDenied, 403), (fetch.FetchTimeout, 504), (fetch.HostUnreachable, 504)),
        *((fetch.BadHostAnswer, 502), (fetch.PictureTooLarge, 413), (fetch.NotAPicture, 415)),
    ],
)
def test_a_failed_fetch_keeps_its_status_and_code(refusal, status, runtime, lambda_context, monkeypatch, capsys):
    def fetch_picture(*_args, **_kwargs):
        raise refusal("what, which, remedy", "pictures.test")

    monkeypatch.setattr(handler, "fetch_picture", fetch_picture)
    answer = handler.lambda_handler({"url": URL}, lambda_context())
    assert answer["statusCode"] == status
    assert error_of(answer) == {"code": refusal.code, "message": "what, which, remedy"}
    assert runtime.calls == []
    metrics = metrics_of(capsys.readouterr().out)
    assert metrics["PicturesDenied" if status == 403 else "PicturesFailed"] == [1.0]
    assert metrics[f"Answers{status // 100}xx"] == [1.0]


def metrics_of(output: str) -> dict:
    """The last embedded-metric-format line, after a check that its declared metrics are there."""
    line = [json.loads(line) for line in output.splitlines() if '"_aws"' in line][-1]
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "image-classifier"
    assert all(metric["Name"] in line for metric in directive["Metrics"])
    return line


def test_an_answer_is_measured(fetched, runtime, lambda_context, capsys):
    handler.lambda_handler({"url": URL}, lambda_context())
    metrics = metrics_of(capsys.readouterr().out)
    assert metrics["PicturesFetched"] == metrics["Answers2xx"] == [1.0]
    assert metrics["FetchLatency"][0] >= 0
    assert metrics["EndpointLatency"][0] > 0


def test_the_unexpected_is_a_short_500_with_the_places_logged(monkeypatch, runtime, lambda_context, log_lines):
    def explode(*_args, **_kwargs):
        raise RuntimeError(f"{URL} {PICTURE.content!r}")

    monkeypatch.setattr(handler, "fetch_picture", explode)
    answer = handler.lambda_handler({"url": URL}, lambda_context())
    assert answer["statusCode"] == 500
    assert error_of(answer)["code"] == "internal_error"
    [line] = log_lines()
    assert line["level"] == "ERROR"
    assert "RuntimeError" in line["message"]
    assert any("test_handler_events.py" in place and place.endswith("explode") for place in line["traceback"])
    assert "secret" not in json.dumps([answer, line])
    assert "the-picture" not in json.dumps([answer, line])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("ENDPOINT_NAME", ""), ("MAX_PICTURE_BYTES", "0"), ("MAX_PICTURE_BYTES", "6291457")),
        *(("MAX_PICTURE_BYTES", "many"), ("PRIVATE_HOSTS", "{}"), ("PRIVATE_HOSTS", '[{"host": "inside.test"}]')),
    ],
)
def test_a_wrong_environment_is_named(variable, value, fetched, runtime, lambda_context, log_lines, monkeypatch):
    monkeypatch.setenv(variable, value)
    answer = handler.lambda_handler({"url": URL}, lambda_context())
    assert answer["statusCode"] == 500
    error = error_of(answer)
    assert error["code"] == "misconfigured"
    assert variable in error["message"]
    assert "inside.test" not in error["message"]
    assert log_lines()[0]["level"] == "ERROR"
    assert variable in log_lines()[0]["message"]


def test_settings_reach_the_fetch(runtime, lambda_context, monkeypatch):
    seen = {}
    monkeypatch.setattr(handler, "fetch_picture", lambda url, **options: seen.update(options) or PICTURE)
    monkeypatch.setenv("MAX_PICTURE_BYTES", "1234")
    monkeypatch.setenv("PRIVATE_HOSTS", '[{"host": "inside.test", "port": 8443, "cidr": "10.0.0.0/8"}]')
    handler.lambda_handler({"url": URL}, lambda_context())
    assert seen["max_bytes"] == 1234
    assert [(entry.host, entry.port) for entry in seen["private_hosts"]] == [("inside.test", 8443)]


def test_a_picture_from_a_private_host_goes_through_to_the_endpoint(
    tls_server, names, connections, runtime, png, answer, lambda_context, monkeypatch
):
    server = tls_server()
    server.behave = lambda connection: answer(connection, png, length=len(png))
    entry = {"host": "pictures.test", "port": server.port, "cidr": "127.0.0.1/32"}
    monkeypatch.setenv("PRIVATE_HOSTS", json.dumps([entry]))
    result = handler.lambda_handler({"url": f"https://pictures.test:{server.port}/a.png"}, lambda_context())
    assert (result["statusCode"], result["body"]) == (200, "[[0.25, -1.5]]")
    assert runtime.calls[0].body == png


def test_importing_needs_no_environment_and_loads_little():
    """A fresh interpreter without credentials, region or variables; heavy packages would double the cold start."""
    code = (
        "import sys; sys.path.insert(0, 'lambda'); import handler; heavy = {'boto3', 's3transfer', 'pydantic', "
        "'aws_xray_sdk', 'requests', 'numpy', 'PIL'} & set(sys.modules); sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POWERTOOLS_"))}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_starting_environment_makes_the_client_before_the_first_request(runtime):
    code = (
        "import sys; sys.path.insert(0, 'lambda'); import handler; print(handler.endpoint_client.cache_info().currsize)"
    )
    root = Path(__file__).parents[2]
    for variables, clients in (({}, "0"), ({"AWS_LAMBDA_FUNCTION_NAME": "image-classifier"}, "1")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, env=os.environ | variables, capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.stderr) == (clients, "")
