"""The Lambda function in front of the endpoint: {"url": ..., "top_k"?: ...} in, the picture's logits or labels out.

Answers direct invocations, function URLs and API Gateway HTTP APIs alike, always with {"statusCode", "headers",
"body"} and always before Lambda's own timeout. Environment: ENDPOINT_NAME; optional PRIVATE_HOSTS (see fetch.py),
MAX_PICTURE_BYTES and Powertools' own variables.
"""

# ruff: noqa: E402 (what is imported below is imported without the collector)
import gc

# An import leaves no garbage, and looking for it is a sixth of a cold start; on again at the end of this module.
gc.disable()

import base64
import functools
import json
import os
import re
import time
from contextvars import ContextVar
from typing import Any, NamedTuple

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.loaders import Loader
from fetch import FetchDenied, Picture, PrivateHost, Refusal, fetch_picture, parse_private_hosts, run_until

SERVICE = "sagemaker-runtime"
# InvokeEndpoint takes 6,291,456 bytes; SageMaker ends a request after 60 s.
MAX_ENDPOINT_BYTES = 6_291_456
ENDPOINT_SECONDS = 60
CONNECT_SECONDS = 1.5
MAX_FETCH_SECONDS = 10.0
FETCH_SHARE = 0.6  # of the time that is left, so that a slow host leaves the endpoint some
ANSWER_SECONDS = 0.5  # kept for answering before Lambda's own timeout
# Escaped for the function's own answer this grows at most threefold, and Lambda's limit is 6 MB.
MAX_ANSWER_BYTES = 1024 * 1024
MAX_TOP_K = 1000
RETRY_AFTER_SECONDS = 1

FUNCTION_NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "image-classifier")
logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", FUNCTION_NAME))
metrics = Metrics(
    namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", FUNCTION_NAME),
    service=os.environ.get("POWERTOOLS_SERVICE_NAME", FUNCTION_NAME),
)
# Until when the current thread may send to the endpoint; see invoke_endpoint.
send_until: ContextVar[float] = ContextVar("send_until", default=float("inf"))


class BadRequest(Refusal):
    """The event has no usable request."""

    status, code = 400, "bad_request"


class Misconfigured(Refusal):
    """The function's environment is wrong: an operator's mistake, not the caller's."""

    status, code = 500, "misconfigured"


class EndpointError(Refusal):
    """The endpoint failed, or answered something that is not its contract."""

    status, code = 502, "endpoint_error"


class EndpointThrottled(Refusal):
    """The endpoint has more to do than it can; the caller may try again."""

    status, code = 503, "endpoint_throttled"


class EndpointTimeout(Refusal):
    """No answer of the endpoint before this function has to give its own."""

    status, code = 504, "endpoint_timeout"


class RefusedByModel(Refusal):
    """The model could not read the picture; `status` is 413 or 415."""

    code = "refused_by_model"

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    """What a caller wants: the picture's URL, and the k likeliest labels instead of all logits."""

    url: str
    top_k: int | None


class Settings(NamedTuple):
    """The function's environment."""

    endpoint_name: str
    max_picture_bytes: int
    private_hosts: tuple[PrivateHost, ...]


@logger.inject_lambda_context(log_event=False)
@metrics.log_metrics(capture_cold_start_metric=True)
def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event: 200 with the endpoint's JSON list of lists, else {"error": {"code", "message"}}."""
    answer_by = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
    request_id = context.aws_request_id
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    metrics.add_metadata(key="function_request_id", value=request_id)
    try:
        status, body = 200, classify(parse_event(event), answer_by, request_id)
    except Refusal as refusal:
        status, body = refusal.status, error_body(refusal.code, str(refusal))
        log_refusal(refusal)
        if isinstance(refusal, EndpointThrottled):
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    except Exception as error:  # Whatever happened, the caller gets an answer.
        status = 500
        body = error_body("internal_error", f"unexpected error: see request {request_id} in the logs")
        log_unexpected(error)
    metrics.add_metric(name=f"Answers{status // 100}xx", unit="Count", value=1)
    return {"statusCode": status, "headers": headers, "body": body}


def classify(request: Request, answer_by: float, request_id: str) -> str:
    """The endpoint's JSON for a request's picture, by `answer_by` (time.monotonic() seconds); raises a Refusal.

    `request_id` goes with the picture, so that the endpoint's log tells of the same request by the same name.
    """
    options = settings()
    started = time.monotonic()
    fetch_by = started + min(MAX_FETCH_SECONDS, FETCH_SHARE * (answer_by - started))
    try:
        picture = fetch_picture(
            request.url,
            deadline=fetch_by,
            max_bytes=options.max_picture_bytes,
            private_hosts=options.private_hosts,
        )
    except Refusal as refusal:
        denied = isinstance(refusal, FetchDenied)
        metrics.add_metric(name="PicturesDenied" if denied else "PicturesFailed", unit="Count", value=1)
        raise
    fetched = time.monotonic()
    metrics.add_metric(name="PicturesFetched", unit="Count", value=1)
    metrics.add_metric(name="FetchLatency", unit="Milliseconds", value=(fetched - started) * 1000)
    body = invoke_endpoint(options.endpoint_name, picture, request.top_k, answer_by, request_id)
    metrics.add_metric(name="EndpointLatency", unit="Milliseconds", value=(time.monotonic() - fetched) * 1000)
    return validated(body)


def parse_event(event: Any) -> Request:
    """The request in a direct, function-URL or API Gateway event; BadRequest says what is missing."""
    wanted = event
    if isinstance(event, dict) and "requestContext" in event:
        try:
            body = event.get("body") or ""
            wanted = json.loads(base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body)
        except (TypeError, ValueError, RecursionError):
            raise BadRequest('the body is not JSON: send {"url": "https://..."}') from None
    if not isinstance(wanted, dict):
        raise BadRequest('the request is not a JSON object: send {"url": "https://..."}')
    url, top_k = wanted.get("url"), wanted.get("top_k")
    if not isinstance(url, str) or not url:
        raise BadRequest('"url" is missing or not a string: send {"url": "https://..."}')
    if top_k is not None and (type(top_k) is not int or not 1 <= top_k <= MAX_TOP_K):
        raise BadRequest(f'"top_k" is not a whole number from 1 to {MAX_TOP_K}: correct it or leave it out')
    return Request(url, top_k)


def settings() -> Settings:
    """Read the environment; Misconfigured names the variable that is wrong."""
    environment = os.environ.get
    return parse_settings(
        environment("ENDPOINT_NAME"), environment("MAX_PICTURE_BYTES", "6000000"), environment("PRIVATE_HOSTS", "[]")
    )


@functools.lru_cache(maxsize=1)
def parse_settings(endpoint_name: str | None, limit: str, private_hosts: str) -> Settings:
    """The texts of the environment, read once: they stay the same for a process's life."""
    if not endpoint_name:
        raise Misconfigured("ENDPOINT_NAME is not set: set it to the name of the SageMaker endpoint")
    if not re.fullmatch("[0-9]{1,7}", limit) or not 0 < int(limit) <= MAX_ENDPOINT_BYTES:
        raise Misconfigured(f"MAX_PICTURE_BYTES is {limit}: set 1 to {MAX_ENDPOINT_BYTES}, what an endpoint takes")
    try:
        return Settings(endpoint_name, int(limit), parse_private_hosts(private_hosts))
    except ValueError as error:
        raise Misconfigured(str(error)) from error


class OneServiceLoader(Loader):
    """botocore's, without its walk over the folders of all 400 services: a tenth of a cold start."""

    def list_available_services(self, type_name: str) -> list[str]:
        return [SERVICE]


@functools.cache
def endpoint_client() -> BaseClient:
    """The process's one client. botocore's own, because boto3 adds to a cold start and nothing that is used here."""
    session = botocore.session.get_session()
    session.register_component("data_loader", OneServiceLoader())
    client = session.create_client(
        SERVICE,
        region_name=os.environ.get("AWS_REGION"),
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ENDPOINT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 2},
            # Each is a twentieth to a fifth of a call: the parameters are all ours, and the agent is else built anew.
            parameter_validation=False,
            user_agent="terraform-aws-image-classifier",
        ),
    )
    client.meta.events.register_first(f"request-created.{SERVICE}", keep_to_the_time_left)
    client.meta.events.register(f"before-parse.{SERVICE}", make_error_readable)
    return client


def keep_to_the_time_left(request: AWSRequest, **_: Any) -> None:
    """Before each attempt: no read waits longer than the caller does, and once nobody waits nothing is sent again.

    A botocore that does not know `read_timeout` waits ENDPOINT_SECONDS, in a thread that nobody waits for.
    """
    seconds = send_until.get() - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the caller has been answered")
    request.context["read_timeout"] = min(ENDPOINT_SECONDS, seconds)


def make_error_readable(response_dict: dict[str, Any], **_: Any) -> None:
    """Before botocore reads an error: its parser raises on a body that is not UTF-8, or no JSON object of texts.

    The status still says what happened, and whether it is worth another attempt.
    """
    if response_dict["status_code"] < 300:
        return
    text = response_dict["body"].decode(errors="replace")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {"message": text}
    kinds = {"OriginalStatusCode": int}
    fields = {name: value for name, value in fields.items() if isinstance(value, kinds.get(name, str))}
    response_dict["body"] = json.dumps(fields).encode()
    response_dict["status_code"] = max(301, response_dict["status_code"])  # 300 is no error to the parser


def invoke_endpoint(
    endpoint_name: str, picture: Picture, top_k: int | None, answer_by: float, request_id: str
) -> bytes:
    """The endpoint's answer to a picture, by `answer_by`; raises one of this module's refusals.

    A read timeout holds for one read, and an answer may drip; hence a deadline around the whole call as well.
    """
    client = endpoint_client()

    def invoke() -> bytes:
        send_until.set(answer_by)
        response = client.invoke_endpoint(
            EndpointName=endpoint_name,
            Body=picture.content,
            ContentType=picture.content_type,
            Accept="application/json" if top_k is None else f"application/json;top_k={top_k}",
            InferenceId=request_id,
        )
        body = bytearray()
        while chunk := response["Body"].read(MAX_ANSWER_BYTES + 1 - len(body)):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise EndpointError(f"the endpoint answered more than {MAX_ANSWER_BYTES} bytes: see its logs")
        return bytes(body)

    try:
        return run_until(answer_by, invoke)
    except ClientError as error:
        raise refusal_of(error) from error
    except (TimeoutError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise EndpointTimeout("the endpoint did not answer in time: try again, or a smaller picture") from error
    except BotoCoreError as error:
        raise EndpointError(f"no whole answer of the endpoint ({type(error).__name__}): try again") from error


def refusal_of(error: ClientError) -> Refusal:
    """What the caller is told of an error that SageMaker answered."""
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code == "ModelError":
        # The container's own status: it refuses a picture that it cannot decode, and more work than it can do.
        status = error.response.get("OriginalStatusCode", 500)
        if status in (400, 413, 415):
            message = f"the model cannot read the picture (status {status}): use a whole JPEG or PNG, or a smaller one"
            return RefusedByModel(message, 413 if status == 413 else 415)
    if status in (429, 503) or "Throttl" in code:
        return EndpointThrottled(f"the endpoint is busy ({code}): try again after {RETRY_AFTER_SECONDS} s")
    return EndpointError(f"the endpoint failed ({code}): try again, or see its logs")


def validated(body: bytes) -> str:
    """The endpoint's body as text, if it is a JSON list of lists and every JSON parser can read it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        text = body.decode()
        answer = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise EndpointError("the endpoint's answer is not JSON: see its logs") from error
    if not isinstance(answer, list) or not all(isinstance(row, list) for row in answer):
        raise EndpointError("the endpoint's answer is not a list of lists: see its logs")
    return text


def error_body(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


def log_refusal(refusal: Refusal) -> None:
    """One line a refusal: the host, never the URL, since its query may hold a signature."""
    if isinstance(refusal, FetchDenied):
        logger.warning("picture fetch denied", reason=refusal.code, host=refusal.host)
    elif isinstance(refusal.__cause__, ClientError):
        log_aws_error(refusal.__cause__)
    elif isinstance(refusal, Misconfigured):
        logger.error("%s", refusal, reason=refusal.code)
    else:
        log = logger.info if refusal.status < 500 else logger.error
        cause = type(refusal.__cause__).__name__ if refusal.__cause__ else None
        log("request refused", reason=refusal.code, status=refusal.status, host=refusal.host, cause=cause)


def log_aws_error(error: ClientError) -> None:
    """SageMaker's error code and message. A ModelError's message quotes the container, so its log stream instead."""
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    if code == "ModelError":
        message = f"{error.response.get('OriginalStatusCode')} from the container: {error.response.get('LogStreamArn')}"
    logger.error("%s from the endpoint: %s", code, message[:500], reason="endpoint_error")


def log_unexpected(error: Exception) -> None:
    """The traceback as places in the code: an exception's own text may quote the request or the picture."""
    places, link = [], error.__traceback__
    while link:
        places.append(f"{link.tb_frame.f_code.co_filename}:{link.tb_lineno} {link.tb_frame.f_code.co_name}")
        link = link.tb_next
    logger.error("unexpected %s", type(error).__name__, reason="internal_error", traceback=places)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # Made while the environment starts, so that provisioned concurrency takes it off the first request.
    endpoint_client()
# All that is here by now stays for the life of the process: later collections need not look at it.
gc.freeze()
gc.enable()
