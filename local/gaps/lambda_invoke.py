"""Lambda Invoke, which in moto 5.2.5 needs docker: here the function's zip runs in a process of its own."""

import base64
import json
import threading
import uuid
from typing import Any
from urllib.parse import unquote

from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.core.utils import unix_time_millis
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.sqs.models import sqs_backends

from local.endpoints import NoDataPlane
from local.functions import Functions, Version
from local.gaps.patch import adds, around
from local.runtime import InvalidPackage, Invocation, RequestTooLarge, TooManyRequests

Reply = tuple[int, dict[str, Any], bytes | str]


def fill(functions: Functions) -> None:
    """`functions` are the hosts that the filled calls reach and stop."""
    _invoke(functions)
    _delete_function(functions)


def _invoke(functions: Functions) -> None:
    """Invoke: RequestResponse, Event and DryRun, by version or alias, with the tail of the log."""

    @adds(LambdaResponse)
    def invoke(response: LambdaResponse) -> Reply:
        name = unquote(response.raw_path.split("/functions/", 1)[1].rsplit("/invocations", 1)[0])
        qualifier = response.querystring.get("Qualifier", [None])[0]
        function = response.backend.get_function(name, qualifier)
        kind = response.headers.get("X-Amz-Invocation-Type") or "RequestResponse"
        payload = response.raw_body
        try:
            json.loads(payload or b"{}")
        except ValueError as error:
            return _refuse(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
        if kind == "DryRun":
            return 204, {"status": 204}, ""

        def run() -> Invocation:
            return _run(functions, response, function, qualifier or _qualifier(name), payload)

        if kind == "Event":
            threading.Thread(target=_run_as_event, args=(run, response.backend, function, payload), daemon=True).start()
            return 202, {"status": 202}, ""
        try:
            invocation = run()
        except TooManyRequests:
            refusal = {
                "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
                "Type": "User",
                "message": "Rate Exceeded.",
            }
            headers = {"status": 429, "x-amzn-errortype": "TooManyRequestsException", "Retry-After": "1"}
            return 429, headers, json.dumps(refusal)
        except RequestTooLarge as error:
            return _refuse(413, "RequestTooLargeException", str(error))
        except InvalidPackage as error:
            return _refuse(502, "InvalidZipFileException", str(error))
        except NoDataPlane as error:
            return _refuse(400, "EmulatorUnsupported", str(error))
        headers = {
            "status": invocation.status,
            "Content-Type": "application/json",
            "X-Amz-Executed-Version": str(function.version),
        }
        if invocation.function_error:
            headers["X-Amz-Function-Error"] = invocation.function_error
        if response.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(invocation.log_tail.encode()).decode()
        return invocation.status, headers, invocation.payload


def _delete_function(functions: Functions) -> None:
    """DeleteFunction: the function's processes have to stop."""

    @around(LambdaBackend)
    def delete_function(
        original: Any, backend: LambdaBackend, function_name: str, qualifier: str | None = None
    ) -> None:
        arn = _unqualified_arn(backend.get_function(function_name, qualifier))
        original(backend, function_name, qualifier)
        functions.remove(arn)


def _qualifier(name: str) -> str | None:
    """The qualifier inside a function name or ARN."""
    tail = name.split(":function:")[-1]
    return tail.partition(":")[2] or None


def _unqualified_arn(function: LambdaFunction) -> str:
    return ":".join(function.function_arn.split(":")[:7])


def _run(
    functions: Functions, response: LambdaResponse, function: LambdaFunction, qualifier: str | None, payload: bytes
) -> Invocation:
    arn = _unqualified_arn(function)
    latest = response.backend.get_function(function.function_name)
    context = response.headers.get("X-Amz-Client-Context")
    version = Version(
        arn=arn,
        version=str(function.version),
        code=function.code_bytes,
        handler=function.handler,
        environment=dict(function.environment_vars or {}),
        timeout_seconds=int(function.timeout),
        memory_mb=int(function.memory_size),
        reserved_concurrency=None if latest.reserved_concurrency is None else int(latest.reserved_concurrency),
    )
    return functions.invoke(
        version,
        payload,
        log_sink=lambda stream, lines: _write_log(latest, stream, lines),
        client_context=base64.b64decode(context).decode() if context else None,
        invoked_arn=f"{arn}:{qualifier}" if qualifier else arn,
        trace_id=response.headers.get("X-Amzn-Trace-Id"),
        request_id=str(uuid.uuid4()),
    )


def _run_as_event(run: Any, backend: LambdaBackend, function: LambdaFunction, payload: bytes) -> None:
    """An asynchronous invocation: retried on errors, then sent to the dead-letter queue. AWS waits between tries."""
    configs = backend.get_function(function.function_name).event_invoke_config
    attempts = 1 + (configs[0].config.get("MaximumRetryAttempts", 2) if configs else 2)
    message = "the invocation was throttled"
    for _ in range(attempts):
        try:
            invocation = run()
        except TooManyRequests:
            continue
        except NoDataPlane:
            return
        if not invocation.function_error:
            return
        message = invocation.payload.decode(errors="replace")
    target = (function.dead_letter_config or {}).get("TargetArn", "")
    if target.startswith("arn:") and target.split(":")[2] == "sqs":
        region, account, queue = target.split(":")[3:6]
        attributes = {
            "RequestID": {"DataType": "String", "StringValue": str(uuid.uuid4())},
            "ErrorCode": {"DataType": "Number", "StringValue": "200"},
            "ErrorMessage": {"DataType": "String", "StringValue": message[:1024]},
        }
        sqs_backends[account][region].send_message(queue, payload.decode(), message_attributes=attributes)


def _write_log(function: LambdaFunction, stream: str, lines: list[str]) -> None:
    """Put lines into the function's log group; where it is missing, as on AWS, only a role that may create it helps."""
    group = (function.logging_config or {}).get("LogGroup") or f"/aws/lambda/{function.function_name}"
    logs = logs_backends[function.account_id][function.region]
    if group not in logs.groups:
        arn = f"arn:{function.partition}:logs:{function.region}:{function.account_id}:log-group:{group}"
        if not _role_permits(function, "logs:CreateLogGroup", arn):
            return
        logs.create_log_group(group, {})
    if stream not in logs.groups[group].streams:
        logs.create_log_stream(group, stream)
    now = int(unix_time_millis())
    logs.put_log_events(group, stream, [{"timestamp": now, "message": line} for line in lines])


def _role_permits(function: LambdaFunction, action: str, resource: str) -> bool:
    """Whether a policy of the function's role allows an action (conditions aside, which moto does not evaluate)."""
    role = iam_backends[function.account_id][function.partition].get_role_by_arn(function.role)
    policies = [*role.policies.values(), *role.managed_policies.values()]
    results = [IAMPolicy(policy).is_action_permitted(action, resource) for policy in policies]
    return PermissionResult.PERMITTED in results and PermissionResult.DENIED not in results


def _refuse(status: int, code: str, message: str) -> Reply:
    return status, {"status": status, "x-amzn-errortype": code}, json.dumps({"Type": "User", "message": message})
