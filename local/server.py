"""The local account's web server: moto behind every AWS endpoint, with unsupported calls refused at once.

moto answers what it does not know with a 500, which AWS's clients retry for minutes; here it is a 400 that names the
call. Every call is written to a file, so that what a run really needed can be held against the policies' grants.
"""

import io
import json
import socket
import sys
import threading
import time
import traceback
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from moto.core.request import Request as MotoRequest
from moto.core.routing import get_service_router
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.exceptions import NotFound
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

PICTURES_PATH = "/local-account/pictures/"
KEPT_ANSWERS = 1000


class AccountApplication:
    """The WSGI application.

    Args:
        calls_path: receives a JSON line for each AWS call: time, service, action, access key, status.
        put_picture: stores (name, bytes) and returns the URL; reached by PUT /local-account/pictures/NAME.
    """

    def __init__(self, calls_path: Path, put_picture: Callable[[str, bytes], str]) -> None:
        self._moto = DomainDispatcherApplication(_create_service)
        self._calls_path = calls_path
        self._put_picture = put_picture
        self._answers: OrderedDict[str, Response] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        if request.path.startswith(PICTURES_PATH) and request.method == "PUT":
            url = self._put_picture(request.path.removeprefix(PICTURES_PATH), request.get_data())
            return Response(url)(environ, start_response)
        body = request.get_data()
        if answer := self._answered_before(request):
            return answer(environ, start_response)
        access_key, service = _credential(request)
        environ["wsgi.input"] = io.BytesIO(body)  # whoever reads next finds it whole
        action = _action(request, body, service)
        response = self._answer(environ, service, action)
        self._log(service, action, access_key, response.status_code)
        self._keep(request, response)
        return response(environ, start_response)

    def _answered_before(self, request: Request) -> Response | None:
        """The answer to an earlier attempt of the same call, whose way to the client was cut.

        AWS's clients send a call again under the same id when its answer was lost; done twice, a creation would fail.
        """
        with self._lock:
            return self._answers.get(request.headers.get("Amz-Sdk-Invocation-Id", ""))

    def _keep(self, request: Request, response: Response) -> None:
        call = request.headers.get("Amz-Sdk-Invocation-Id")
        # What AWS's clients try again because of the answer is to be done again.
        again = response.status_code >= 500 or response.status_code == 429
        if call and request.method not in ("GET", "HEAD") and not again:
            with self._lock:
                self._answers[call] = response
                if len(self._answers) > KEPT_ANSWERS:
                    self._answers.popitem(last=False)

    def _answer(self, environ: dict[str, Any], service: str, action: str) -> Response:
        call = f"{service} {action}"
        try:
            body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        except NotImplementedError as error:
            return _refusal(
                service, environ, "EmulatorUnsupported", f"{service} {action}: the local account lacks {error}"
            )
        except Exception as error:
            traceback.print_exc()
            return _refusal(service, environ, "EmulatorFailure", f"the local account failed in {call}: {error!r}")
        response = Response(list(body), status, headers)
        if response.status_code == 404 and NotFound.description.encode() in response.get_data():
            return _refusal(service, environ, "EmulatorUnsupported", f"the local account lacks {call}")
        return response

    def _log(self, service: str, action: str, access_key: str, status: int) -> None:
        line = {"time": time.time(), "service": service, "action": action, "access_key": access_key, "status": status}
        with self._lock, self._calls_path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _create_service(service: str | None) -> Any:
    if service is None:
        raise NotImplementedError("the whole service")
    return create_backend_app(service)


def open_server(application: AccountApplication, port: int) -> BaseWSGIServer:
    """A threaded server on 127.0.0.1, not yet serving; port 0 takes a free one. OSError where it is taken."""
    # werkzeug itself would print advice and leave the process.
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        return make_server(
            *listener.getsockname(), application, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
        )


class _QuietHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _credential(request: Request) -> tuple[str, str]:
    """(access key, service) of a signed request, from its header or its query; empty where it is not signed."""
    header = request.headers.get("Authorization", "")
    scope = header.partition("Credential=")[2].split(",")[0] or request.args.get("X-Amz-Credential", "")
    parts = scope.split("/")
    return (parts[0], parts[3].lower()) if len(parts) == 5 else ("", "")


def _action(request: Request, body: bytes, service: str) -> str:
    """The name of the API operation, or method and path where it cannot be told."""
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if request.mimetype == "application/x-www-form-urlencoded":
        for action in urllib.parse.parse_qs(body.decode()).get("Action", []):
            return action
    try:
        operation, _ = get_service_router(service).match(MotoRequest(dict(request.environ)))
        return operation.name
    except Exception:
        return f"{request.method} {request.path}"


def _refusal(service: str, environ: dict[str, Any], code: str, message: str) -> Response:
    """A 400 in the form that the service's clients parse."""
    print(f"{code}: {message}", file=sys.stderr, flush=True)
    xml = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if service == "s3":
        return Response(f"<Error>{xml}</Error>", 400, content_type="application/xml")
    if service == "ec2":
        body = f"<Response><Errors><Error>{xml}</Error></Errors><RequestID>local</RequestID></Response>"
        return Response(body, 400, content_type="text/xml")
    if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        body = f"<ErrorResponse><Error><Type>Sender</Type>{xml}</Error><RequestId>local</RequestId></ErrorResponse>"
        return Response(body, 400, content_type="text/xml")
    body = json.dumps({"__type": code, "message": message})
    return Response(body, 400, {"x-amzn-errortype": code}, content_type="application/x-amz-json-1.1")
