"""What EC2 tells an instance about itself: the metadata service, version 2."""

import json
import os
import urllib.error
import urllib.request


def spot_notice() -> str | None:
    """What EC2 is about to do to this spot instance ("terminate at 2030-01-01T00:00:00Z"), or None.

    A rebalance recommendation, which may come earlier and may mean nothing, is not asked for.
    """
    try:
        action = json.loads(read("spot/instance-action"))
        return f"{action['action']} at {action['time']}"
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def read(path: str) -> str:
    """The value at meta-data/PATH. Raises OSError; of it HTTPError with code 404 where there is none."""
    token = _request("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return _request(f"meta-data/{path}", "GET", {"X-aws-ec2-metadata-token": token})


def _request(path: str, method: str, headers: dict[str, str]) -> str:
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    request = urllib.request.Request(f"{base}/latest/{path}", method=method, headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=5) as response:
        return response.read().decode()
