"""The hosts behind SageMaker endpoints: started beside the one in service, switched to when they answer."""

import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from local.hosting import HostingError


class NoDataPlane(Exception):
    """The account was started without a data plane, so nothing serves."""


class Host(Protocol):
    """A model server; see local.hosting.EndpointHost."""

    def start(self) -> None: ...

    def invoke(
        self, body: bytes, content_type: str, accept: str, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]: ...

    def stop(self) -> None: ...


OpenHost = Callable[[Path, Mapping[str, str]], Host]


class Endpoints:
    """One host an endpoint ARN.

    Args:
        state_dir: archives stand below `archives/` in it while their hosts start.
        open_host: makes a host, not yet started, from (archive, container environment); None for an account without a
            data plane, whose endpoints are in service at once and answer nothing.
    """

    def __init__(self, state_dir: Path, open_host: OpenHost | None) -> None:
        self._archives = state_dir / "archives"
        self._open_host = open_host
        self._hosts: dict[str, Host] = {}
        self._lock = threading.Lock()

    def deploy(
        self, arn: str, archive: bytes, environment: Mapping[str, str], done: Callable[[str | None], None]
    ) -> None:
        """Start a host for `archive` in the background and put it in the place of the endpoint's present one, if any.

        `done` is called once: with None when the new host serves, else with the reason why the old one still does.
        """
        if self._open_host is None:
            done(None)
            return
        threading.Thread(target=self._deploy, args=(arn, archive, environment, done), daemon=True).start()

    def _deploy(
        self, arn: str, archive: bytes, environment: Mapping[str, str], done: Callable[[str | None], None]
    ) -> None:
        self._archives.mkdir(parents=True, exist_ok=True)
        path = self._archives / f"{uuid.uuid4()}.tar.gz"
        path.write_bytes(archive)
        host = self._open_host(path, environment)
        try:
            host.start()
        except (HostingError, OSError) as error:
            done(str(error))
            return
        finally:
            path.unlink()
        with self._lock:
            old = self._hosts.get(arn)
            self._hosts[arn] = host
        done(None)
        if old:
            old.stop()

    def invoke(
        self, arn: str, body: bytes, content_type: str, accept: str, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of the container's answer. Raises NoDataPlane."""
        if self._open_host is None:
            raise NoDataPlane("this local account runs without a data plane (--no-data-plane): no endpoint answers")
        return self._hosts[arn].invoke(body, content_type, accept, headers)

    def remove(self, arn: str) -> None:
        """Stop the endpoint's host, where it has one."""
        with self._lock:
            host = self._hosts.pop(arn, None)
        if host:
            host.stop()

    def stop(self) -> None:
        """Stop every host."""
        for arn in list(self._hosts):
            self.remove(arn)
