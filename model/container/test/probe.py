"""What image.py runs inside the container: asks the server on the loopback, and looks at where it is.

Prints a JSON object; exit status 1 with a line for what is not as it must be. Standard library only.
"""

import json
import math
import os
import socket
import sys
import time
import urllib.error
import urllib.request

URL = f"http://127.0.0.1:{os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080')}"
PICTURE = "/opt/ml/picture"
READY_SECONDS = 60


def wait_until_ready() -> float:
    """Seconds until /ping answered 200."""
    began = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(f"{URL}/ping", timeout=5):
                return time.monotonic() - began
        except OSError as error:  # refused, or an HTTP status from 400
            if time.monotonic() - began > READY_SECONDS:
                sys.exit(f"/ping gave no 200 within {READY_SECONDS} seconds: {error}")
        time.sleep(0.1)


def classify() -> int:
    """The number of logits that the picture is answered with."""
    with open(PICTURE, "rb") as file:
        picture = file.read()
    kind = "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"
    headers = {"Content-Type": kind, "Accept": "application/json"}
    request = urllib.request.Request(f"{URL}/invocations", picture, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read().decode()
    except urllib.error.HTTPError as error:
        sys.exit(f"/invocations answered {error.code}: {error.read().decode(errors='replace')[:500]}")
    rows = json.loads(body)
    if not (len(rows) == 1 and rows[0] and all(isinstance(logit, float) and math.isfinite(logit) for logit in rows[0])):
        sys.exit(f"/invocations answered no row of logits: {body[:500]}")
    return len(rows[0])


def check_confinement() -> None:
    if os.getuid() == 0:
        sys.exit("the container runs as root")
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        sys.exit("the root file system can be written to")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks for a route
        except OSError:
            return
    sys.exit("the container has a network")


check_confinement()
ready_seconds = wait_until_ready()
print(json.dumps({"uid": os.getuid(), "ready_seconds": round(ready_seconds, 1), "logits": classify()}))
