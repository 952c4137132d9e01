"""An AWS account on this machine: `python -m local.account --port 4566 --state-dir build/local`.

One process serves the control plane (moto and the gaps filled) and runs the data plane (functions and endpoints as
child processes). It prints one JSON line when it is ready and stops with everything it started on SIGTERM or SIGINT.
Programs and tests use `running_account`, which runs that process.
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local import processes

ROOT = Path(__file__).resolve().parents[1]
REGION = "us-east-1"
START_SECONDS = 60


class Account:
    """A running local account, as its clients see it.

    Attributes:
        endpoint_url: where every AWS API is served.
        pictures_url: the HTTPS server that `put_picture` fills, reachable by this account's functions.
        environment: AWS_* variables that lead a child process (Terraform, boto3, a box) to this account.
    """

    def __init__(self, endpoint_url: str, pictures_url: str) -> None:
        self.endpoint_url = endpoint_url
        self.pictures_url = pictures_url
        self.environment = account_environment(endpoint_url)

    def environment_of(self, role: str) -> dict[str, str]:
        """`environment` with a role's credentials, as on AWS: calls.jsonl has its calls under its name."""
        return {**self.environment, "AWS_ACCESS_KEY_ID": role}

    def client(self, service: str) -> Any:
        """A boto3 client of this account."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )

    def put_picture(self, name: str, content: bytes) -> str:
        """Store a picture and return its https URL."""
        url = f"{self.endpoint_url}/local-account/pictures/{urllib.parse.quote(name)}"
        with urllib.request.urlopen(urllib.request.Request(url, data=content, method="PUT")) as response:
            return response.read().decode()


def account_environment(endpoint_url: str) -> dict[str, str]:
    """The variables that make AWS's clients use the account at `endpoint_url` and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }


@contextlib.contextmanager
def running_account(
    state_dir: Path | str | None = None,
    *,
    port: int = 0,
    data_plane: bool = True,
    lambda_concurrency_quota: int = 1000,
) -> Iterator[Account]:
    """Run an account for the time of a `with` block; see `main` for the arguments.

    `state_dir` keeps logs and calls.jsonl; without one they go to a temporary folder. The account's resources live in
    memory and end with it. Raises RuntimeError with the end of the log where the account does not start.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(state_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="account-"))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        processes.reap(folder)
        log_path = folder / "logs" / "account.log"
        log_path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "local.account", "--port", str(port), "--state-dir", str(folder)]
        command += ["--lambda-concurrency-quota", str(lambda_concurrency_quota)]
        command += [] if data_plane else ["--no-data-plane"]
        process = processes.start(command, name="account", state_dir=folder, log_path=log_path, cwd=ROOT)
        stack.callback(process.stop)
        yield Account(**_ready_line(process))


def _ready_line(process: processes.Process) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in process.log_path.read_text().splitlines(keepends=True):
            if line.startswith('{"endpoint_url"') and line.endswith("\n"):
                return json.loads(line)
        time.sleep(0.05)
    raise RuntimeError(f"the local account did not start:\n{process.log_tail()}")


def main(arguments: list[str] | None = None) -> None:
    """Serve an account until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m local.account", description="An AWS account on this machine.")
    parser.add_argument("--port", type=int, default=4566, help="on 127.0.0.1; 0: any free one (default: %(default)s)")
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path("build/local"),
        help="logs, calls.jsonl, unpacked code (default: %(default)s)",
    )
    parser.add_argument(
        "--lambda-concurrency-quota",
        type=int,
        default=1000,
        help="concurrent executions of the account; many new accounts have 10 (default: %(default)s)",
    )
    parser.add_argument(
        "--no-data-plane",
        dest="data_plane",
        action="store_false",
        help="run no functions and endpoints: endpoints are in service at once, Invoke is refused",
    )
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _serving(options) as urls:
            print(json.dumps(urls), flush=True)
            stop.wait()
    except OSError as error:
        print(f"local account: cannot listen on port {options.port}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def _serving(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Everything of the account, in this process and below it."""
    # moto takes a second to import, and whoever only wants a client of a running account does without it.
    from local import gaps, server
    from local.endpoints import Endpoints
    from local.functions import Functions
    from local.hosting import EndpointHost
    from local.pictures import PictureHost

    state_dir = options.state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    processes.reap(state_dir)
    for leftover in ("archives", "endpoints", "functions", "calls.jsonl"):
        path = state_dir / leftover
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    with contextlib.ExitStack() as stack:
        pictures = PictureHost(state_dir)
        stack.callback(pictures.stop)
        # By address: "localhost" may also resolve to ::1, which no single private_hosts entry covers beside 127.0.0.1.
        pictures_url = f"https://127.0.0.1:{pictures.port}"

        def put_picture(name: str, content: bytes) -> str:
            return pictures_url + urllib.parse.urlsplit(pictures.put(name, content)).path

        application = server.AccountApplication(state_dir / "calls.jsonl", put_picture)
        web = server.open_server(application, options.port)
        endpoint_url = f"http://127.0.0.1:{web.socket.getsockname()[1]}"

        def open_host(archive: Path, variables: Mapping[str, str]) -> EndpointHost:
            return EndpointHost(archive, state_dir, variables)

        endpoints = Endpoints(state_dir, open_host if options.data_plane else None)
        stack.callback(endpoints.stop)
        functions = Functions(
            state_dir,
            environment={
                **account_environment(endpoint_url),
                "AWS_ACCESS_KEY_ID": "lambda",  # in calls.jsonl a role's calls stand under its name
                "SSL_CERT_FILE": str(pictures.ca_file),
            },
            private_hosts=[{"host": "127.0.0.1", "port": pictures.port, "cidr": "127.0.0.1/32"}],
            unreserved_concurrency=options.lambda_concurrency_quota,
            data_plane=options.data_plane,
        )
        stack.callback(functions.stop)
        gaps.fill(endpoints, functions, options.lambda_concurrency_quota)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        stack.callback(web.shutdown)
        yield {"endpoint_url": endpoint_url, "pictures_url": pictures_url}


if __name__ == "__main__":
    main()
