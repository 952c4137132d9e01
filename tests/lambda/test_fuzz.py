"""Whatever comes in (URLs, events, answers of hosts and of the endpoint), a well-formed answer goes out, no secret."""

import base64
import io
import json

import fetch
import handler
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

SECRETS = ("pa55word", "AKIA", "c0ffee", "testing-secret")
PIXELS = b"-the-pixels-of-the-picture-"


def fuzz(examples: int, **strategies):
    """hypothesis under this many examples; a busy machine is no failure."""
    unhurried = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    return lambda test: unhurried(given(**strategies)(test))


def few_or(many: int, few: int):
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture
def told(capsys):
    """A function that returns what was logged and printed since it was last called."""
    stream = io.StringIO()
    previous = handler.logger.logger_handler.setStream(stream)

    def told() -> str:
        logged = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        assert all(json.loads(line) for line in logged.splitlines())
        return logged + "".join(capsys.readouterr())

    yield told
    handler.logger.logger_handler.setStream(previous)


def assert_silent(told: str, *more: str) -> None:
    assert not [secret for secret in (*SECRETS, *more, "Logging error") if secret in told]


# URLs -----------------------------------------------------------------------------------------------------------------

url_pieces = st.sampled_from([*"/\\@:?#[]%.&= \t\r\n\x00", "https://", "http:", "127.0.0.1", "a.test", "0x7f", "443"])
hostile_urls = st.text() | st.lists(url_pieces | st.text(max_size=3), max_size=12).map("".join)


@few_or(5_000, 300)
def test_any_text_is_a_plain_target_or_denied(examples, fuzzed):
    @fuzz(examples, url=hostile_urls | hostile_urls.map("https://".__add__))
    def holds(url):
        fuzzed()
        try:
            target = fetch.parse_url(url)
        except fetch.FetchDenied as refusal:
            assert refusal.status == 403
        else:
            assert target.path.startswith("/")
            assert target.path.isascii() and not any(character.isspace() for character in target.path)
            assert set(target.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
            assert fetch.parse_url(f"https://{target.host}:{target.port}{target.path}") == target

    holds()


# Events ---------------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
credentials = st.sampled_from(["", "user:pa55word@", "AKIAIOSFODNN7EXAMPLE@"])
hosts = st.sampled_from(["pictures.test", "127.0.0.1", "[::1]", "nowhere.test", "0x7f.1"]) | st.text(max_size=10)
urls = st.builds(
    lambda scheme, user, host, path: f"{scheme}{user}{host}/{path}?X-Amz-Signature=c0ffee",
    *(st.sampled_from(["https://", "http://", "https:\\\\", ""]), credentials, hosts, st.text(max_size=10)),
)
requests = st.fixed_dictionaries({"url": urls | json_values}, optional={"top_k": st.integers(-1, 5) | json_values})
texts = requests.map(json.dumps) | json_values.map(json.dumps) | st.text()
encoded_texts = texts.map(lambda text: base64.b64encode(text.encode(errors="replace")).decode())
http_events = st.fixed_dictionaries(
    {
        "requestContext": st.just({"http": {"method": "POST"}}) | json_values,
        "body": texts | encoded_texts | json_values,
        "isBase64Encoded": st.booleans() | json_values,
    },
    optional={"version": st.just("2.0"), "headers": st.just({"authorization": "Bearer c0ffee"}) | json_values},
)
names_of_fields = st.sampled_from(["url", "top_k", "body", "requestContext", "isBase64Encoded"])
events = json_values | requests | http_events | st.dictionaries(names_of_fields, json_values)


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def assert_well_formed(answer: object) -> None:
    assert set(answer) == {"statusCode", "headers", "body"}
    assert type(answer["statusCode"]) is int
    assert answer["headers"]["Content-Type"] == "application/json"
    json.dumps(answer, allow_nan=False)
    body = json.loads(answer["body"], parse_constant=no_json)
    if answer["statusCode"] == 200:
        assert all(isinstance(row, list) for row in body)
    else:
        assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}


@few_or(2_000, 300)
def test_whatever_comes_in_a_well_formed_answer_goes_out(
    examples, fuzzed, runtime, names, connections, lambda_context, told
):
    @fuzz(examples, event=events)
    def holds(event):
        fuzzed()
        answer = handler.lambda_handler(event, lambda_context())
        assert_well_formed(answer)
        assert answer["statusCode"] in (400, 403, 504)  # No host answers here, so there is nothing to classify.
        assert_silent(told())
        assert runtime.calls == []
        assert connections == []

    holds()


# Answers --------------------------------------------------------------------------------------------------------------

status_lines = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 302 Found", b"HTTP/2 200", b""])
header_lines = st.sampled_from(
    [
        *(b"Content-Length: 35", b"Content-Length: 36", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length"),
        *(b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"Content-Encoding: identity", b"X: \xff\x00"),
        *(b" folded", b"Location: https://10.0.0.1/?c0ffee", b":", b"Set-Cookie: pa55word"),
    ]
)
pictures = st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b""]).map(lambda start: start + PIXELS)
chunks = pictures.map(lambda data: b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
likely = pictures.map(lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 35\r\n\r\n\x89PNG\r\n\x1a\n" + PIXELS
answers = (
    st.binary(max_size=200)
    | likely
    | st.builds(
        lambda status, headers, body: b"\r\n".join([status, *headers, b"", body]),
        *(status_lines, st.lists(header_lines | st.binary(max_size=12), max_size=4), pictures | chunks | st.binary()),
    )
)
endpoint_bodies = st.just(b"[[0.5]]") | json_values.map(lambda value: json.dumps(value).encode()) | st.binary()


@few_or(500, 100)
def test_whatever_host_and_endpoint_answer_the_callers_answer_is_well_formed(
    examples, fuzzed, tls_server, names, connections, runtime, lambda_context, told, monkeypatch
):
    server = tls_server()
    entry = {"host": "pictures.test", "port": server.port, "cidr": "127.0.0.1/32"}
    monkeypatch.setenv("PRIVATE_HOSTS", json.dumps([entry]))
    event = {"url": f"https://pictures.test:{server.port}/a.png?X-Amz-Signature=c0ffee"}
    statuses = set()

    def send(data: bytes, politely: bool):
        def behave(connection):
            connection.sendall(data)
            if politely:
                connection.unwrap()

        return behave

    # Of the endpoint's failures those that are tried again, after a pause, are in test_handler_endpoint.py.
    @fuzz(
        examples,
        data=answers,
        politely=st.booleans(),
        status=st.sampled_from([200, 200, 400, 424]),
        body=endpoint_bodies,
    )
    @example(data=GOOD, politely=True, status=200, body=b"[[0.5]]")
    @example(data=GOOD, politely=False, status=200, body=b"[[NaN]]")
    def holds(data, politely, status, body):
        fuzzed()
        server.behave = send(data, politely)
        runtime.script = [lambda request: request.reply(status, body, x_amzn_ErrorType="ModelError")]
        answer = handler.lambda_handler(event, lambda_context())
        assert_well_formed(answer)
        if status == 200:
            statuses.add(answer["statusCode"])
        assert_silent(told(), "of-the-picture")

    holds()
    assert {200, 502} <= statuses <= {200, 413, 415, 502}
    assert set(connections) <= {("127.0.0.1", server.port), runtime.server_address}
