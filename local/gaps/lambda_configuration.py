"""Lambda configuration gaps of moto 5.2.5."""

from typing import Any

from moto.awslambda.models import LambdaFunction

from local.gaps.patch import around

# Fields that moto takes from CreateFunction alone, by the name of their attribute.
_UPDATED = {
    "DeadLetterConfig": "dead_letter_config",
    "KMSKeyArn": "kms_key_arn",
    "LoggingConfig": "logging_config",
    "TracingConfig": "tracing_config",
}


def fill() -> None:
    """CreateFunction, UpdateFunctionConfiguration: DeadLetterConfig and LoggingConfig are not read back, and changes of
    KMSKeyArn and TracingConfig are dropped."""

    @around(LambdaFunction)
    def __init__(
        original: Any, function: LambdaFunction, account_id: str, spec: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        original(function, account_id, spec, *args, **kwargs)
        function.dead_letter_config = spec.get("DeadLetterConfig")
        function.logging_config = spec.get("LoggingConfig")
        function.provisioned_concurrency = {}

    @around(LambdaFunction)
    def get_configuration(original: Any, function: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
        configuration = original(function, on_create)
        if function.dead_letter_config and function.dead_letter_config.get("TargetArn"):
            configuration["DeadLetterConfig"] = function.dead_letter_config
        configuration["LoggingConfig"] = {
            "LogFormat": "Text",
            "LogGroup": f"/aws/lambda/{function.function_name}",
        } | (function.logging_config or {})
        return configuration

    @around(LambdaFunction)
    def update_configuration(original: Any, function: LambdaFunction, config_updates: dict[str, Any]) -> dict[str, Any]:
        for field, attribute in _UPDATED.items():
            if field in config_updates:
                setattr(function, attribute, config_updates[field])
        return original(function, config_updates)
