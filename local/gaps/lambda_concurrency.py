"""Lambda concurrency gaps of moto 5.2.5: provisioned concurrency, and AWS's limits on both kinds."""

import json
from typing import Any
from urllib.parse import unquote

from moto.awslambda.exceptions import InvalidParameterValueException, LambdaClientError, UnknownAliasException
from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.awslambda.urls import url_paths
from moto.core.utils import iso_8601_datetime_with_milliseconds

from local.gaps.patch import adds, around


class _NoProvisionedConcurrency(LambdaClientError):
    code = 404

    def __init__(self) -> None:
        super().__init__(
            "ProvisionedConcurrencyConfigNotFoundException",
            "No Provisioned Concurrency Config found for this function",
        )


def fill(quota: int) -> None:
    """`quota` is the account's limit of concurrent executions: 1,000, and 10 in many new accounts."""
    _reserved_concurrency_limits(quota)
    _provisioned_concurrency(quota)


def _provisioned(function: LambdaFunction, but: str | None = None) -> int:
    """The provisioned concurrency of all qualifiers of a function, `but` one."""
    configs = function.provisioned_concurrency.items()
    return sum(config["RequestedProvisionedConcurrentExecutions"] for name, config in configs if name != but)


def _check_unreserved(backend: LambdaBackend, quota: int, claims: dict[str, int], field: str) -> None:
    """AWS keeps 100 executions, or all of a smaller quota, for the functions that reserve none."""
    minimum = min(100, quota)
    for function in backend.list_functions():
        claims.setdefault(
            function.function_name,
            int(function.reserved_concurrency) if function.reserved_concurrency is not None else _provisioned(function),
        )
    if quota - sum(claims.values()) < minimum and any(claims.values()):
        raise InvalidParameterValueException(
            f"Specified {field} for function decreases account's UnreservedConcurrentExecution below its minimum "
            f"value of [{minimum}]."
        )


def _reserved_concurrency_limits(quota: int) -> None:
    """PutFunctionConcurrency: no account quota, and reserved may fall below provisioned concurrency."""

    @around(LambdaBackend)
    def put_function_concurrency(
        original: Any, backend: LambdaBackend, function_name: str, reserved_concurrency: int
    ) -> Any:
        function = backend.get_function(function_name)
        reserved = int(reserved_concurrency)
        _check_unreserved(backend, quota, {function.function_name: reserved}, "ReservedConcurrentExecutions")
        if reserved < _provisioned(function):
            raise InvalidParameterValueException(
                "ReservedConcurrentExecutions for function should not be lower than function's total provisioned "
                f"concurrency [{_provisioned(function)}]."
            )
        return original(backend, function_name, reserved_concurrency)


def _provisioned_concurrency(quota: int) -> None:
    """Put-, Get-, Delete- and ListProvisionedConcurrencyConfig(s): no route. Ready at once: nothing is warmed here."""
    url_paths[r"{0}/(?P<api_version>[^/]+)/functions/(?P<function_name>[\w_:%-]+)/provisioned-concurrency/?$"] = (
        LambdaResponse.dispatch
    )

    def addressed(response: LambdaResponse) -> tuple[LambdaFunction, str]:
        name = unquote(response.path.split("/")[3])
        return response.backend.get_function(name), response.querystring.get("Qualifier", [""])[0]

    def reply(status: int, body: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
        return status, {"status": status}, json.dumps(body)

    @adds(LambdaResponse)
    def put_provisioned_concurrency_config(response: LambdaResponse) -> tuple[int, dict[str, Any], str]:
        function, qualifier = addressed(response)
        backend = response.backend
        wanted = response.json_body["ProvisionedConcurrentExecutions"]
        _check_qualifier(backend, function, qualifier)
        total = _provisioned(function, but=qualifier) + wanted
        if function.reserved_concurrency is None:
            _check_unreserved(backend, quota, {function.function_name: total}, "ConcurrentExecutions")
        elif total > int(function.reserved_concurrency):
            raise InvalidParameterValueException(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                "function"
            )
        config = {
            "RequestedProvisionedConcurrentExecutions": wanted,
            "AvailableProvisionedConcurrentExecutions": wanted,
            "AllocatedProvisionedConcurrentExecutions": wanted,
            "Status": "READY",
            "LastModified": iso_8601_datetime_with_milliseconds(),
        }
        function.provisioned_concurrency[qualifier] = config
        return reply(202, config)

    @adds(LambdaResponse)
    def get_provisioned_concurrency_config(response: LambdaResponse) -> tuple[int, dict[str, Any], str]:
        function, qualifier = addressed(response)
        if qualifier not in function.provisioned_concurrency:
            raise _NoProvisionedConcurrency()
        return reply(200, function.provisioned_concurrency[qualifier])

    @adds(LambdaResponse)
    def delete_provisioned_concurrency_config(response: LambdaResponse) -> tuple[int, dict[str, Any], str]:
        function, qualifier = addressed(response)
        function.provisioned_concurrency.pop(qualifier, None)
        return reply(204, {})

    @adds(LambdaResponse)
    def list_provisioned_concurrency_configs(response: LambdaResponse) -> tuple[int, dict[str, Any], str]:
        function, _ = addressed(response)
        configs = [
            {"FunctionArn": f"{function.function_arn}:{qualifier}"} | config
            for qualifier, config in sorted(function.provisioned_concurrency.items())
        ]
        return reply(200, {"ProvisionedConcurrencyConfigs": configs})

    @around(LambdaBackend)
    def delete_alias(original: Any, backend: LambdaBackend, name: str, function_name: str) -> None:
        backend.get_function(function_name).provisioned_concurrency.pop(name, None)
        original(backend, name, function_name)


def _check_qualifier(backend: LambdaBackend, function: LambdaFunction, qualifier: str) -> None:
    if qualifier == "$LATEST":
        raise InvalidParameterValueException(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        )
    if qualifier.isdigit():
        backend.get_function(function.function_name, qualifier)  # raises where there is no such version
        return
    aliases = {alias.name: alias for alias in backend.list_aliases(function.function_name)}
    if qualifier not in aliases:
        raise UnknownAliasException(f"{function.function_arn}:{qualifier}")
    if aliases[qualifier].function_version == "$LATEST":
        raise InvalidParameterValueException(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        )
    if (aliases[qualifier].routing_config or {}).get("AdditionalVersionWeights"):
        raise InvalidParameterValueException("Alias with weights can not be used with Provisioned Concurrency")
