"""The hosts behind Lambda functions: one for each published version, replaced when its code or settings change."""

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from local.endpoints import NoDataPlane
from local.runtime import FunctionHost, Invocation


class Version(NamedTuple):
    """What one version of a function runs: its unqualified ARN, "$LATEST" or a number, and its package and settings.

    `reserved_concurrency` is the function's, here applied to each version on its own.
    """

    arn: str
    version: str
    code: bytes
    handler: str
    environment: Mapping[str, str]
    timeout_seconds: int
    memory_mb: int
    reserved_concurrency: int | None


class Functions:
    """One FunctionHost a function version.

    Args:
        state_dir: packages are unpacked below it.
        environment: AWS_* and whatever else of the laptop the function's process gets beside its own variables.
        private_hosts: entries added to the function's PRIVATE_HOSTS, so that it may fetch from this machine.
        unreserved_concurrency: the limit for a function that reserves none.
        data_plane: without one every invocation raises NoDataPlane.
    """

    def __init__(
        self,
        state_dir: Path,
        environment: Mapping[str, str],
        private_hosts: list[dict[str, object]],
        unreserved_concurrency: int,
        data_plane: bool = True,
    ) -> None:
        self._state_dir = state_dir
        self._environment = environment
        self._private_hosts = private_hosts
        self._unreserved = unreserved_concurrency
        self._data_plane = data_plane
        self._hosts: dict[tuple[str, str], tuple[Version, FunctionHost]] = {}
        self._lock = threading.Lock()

    def invoke(
        self,
        version: Version,
        payload: bytes,
        *,
        log_sink: Callable[[str, list[str]], None],
        client_context: str | None = None,
        invoked_arn: str | None = None,
        trace_id: str | None = None,
        request_id: str | None = None,
    ) -> Invocation:
        """Run the handler once. `log_sink` is called with (log stream, lines). Raises NoDataPlane, TooManyRequests."""
        if not self._data_plane:
            raise NoDataPlane("this local account runs without a data plane (--no-data-plane): no function runs")
        return self._host(version, log_sink).invoke(
            payload,
            client_context=client_context,
            invoked_arn=invoked_arn,
            trace_id=trace_id,
            request_id=request_id or str(uuid.uuid4()),
        )

    def remove(self, arn: str) -> None:
        """Stop every host of a function, by its unqualified ARN."""
        with self._lock:
            gone = [self._hosts.pop(key)[1] for key in list(self._hosts) if key[0] == arn]
        for host in gone:
            host.stop()

    def stop(self) -> None:
        """Stop every host."""
        for arn in {arn for arn, _ in self._hosts}:
            self.remove(arn)

    def _host(self, version: Version, log_sink: Callable[[str, list[str]], None]) -> FunctionHost:
        key = (version.arn, version.version)
        outdated = None
        with self._lock:
            known, host = self._hosts.get(key, (None, None))
            if known != version:
                outdated, host = host, self._open(version, log_sink)
                self._hosts[key] = (version, host)
        if outdated:
            outdated.stop()
        return host

    def _open(self, version: Version, log_sink: Callable[[str, list[str]], None]) -> FunctionHost:
        host = FunctionHost(
            version.code,
            version.handler,
            self._variables(version.environment),
            version.timeout_seconds,
            version.memory_mb,
            self._unreserved if version.reserved_concurrency is None else version.reserved_concurrency,
            function_arn=version.arn,
            version=version.version,
            log_sink=lambda lines: log_sink(host.log_stream_name, lines),
            state_dir=self._state_dir,
        )
        return host

    def _variables(self, own: Mapping[str, str]) -> dict[str, str]:
        variables = {**own, **self._environment}
        if self._private_hosts:
            variables["PRIVATE_HOSTS"] = json.dumps(json.loads(own.get("PRIVATE_HOSTS", "[]")) + self._private_hosts)
        return variables
