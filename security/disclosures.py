"""Secrets, account ids and bucket names in the repository's files: there must be none but those made up for a test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKOV = ROOT / ".venv-scan" / "bin" / "checkov"

# (file, checkov's name of the check) of what looks like a secret and is none.
MADE_UP = {
    ("local/instance_metadata.py", "Base64 High Entropy String"),  # the key that AWS's documentation shows
    ("tests/lambda/fetch_vectors.tsv", "Basic Auth Credentials"),  # a URL with a password, which must be refused
    ("tests/lambda/test_fuzz.py", "AWS Access Key"),  # looked for in the handler's log
}
# Twelve digits that may stand here.
ACCOUNTS = {
    "123456789012": "AWS's documentation",
    "111122223333": "AWS's documentation",
    "999999999999": "somebody else's, in the tables and tests",
    "000000000000": "part of a UUID or a hash of zeros",
    "763104351884": "AWS's deep learning images",
    "136693071363": "Debian's images",
    "099720109477": "Canonical's images",
    "017700000001": "an address in disguise, of the fetch vectors",
}
# Placeholders; how the names of AWS's own buckets begin before the region; and S3's logging, which is a service.
BUCKETS = {"bucket", "pictures", "prod-", "logging"}
# Where buckets are made up, to be allowed or denied.
MADE_UP_BUCKETS = ("tests", "tables")
# Hashes are long enough to hold any twelve digits; the vectors hold addresses written as numbers.
WITHOUT_ACCOUNTS = (".lock", ".lock.hcl", "package-lock.json", "fetch_vectors.tsv")
ACCOUNT = re.compile(r"(?<![\w.])\d{12}(?![\w.]*\w)")
NAME = r"([a-z0-9][a-z0-9.-]{2,62})"
BUCKET = re.compile(
    rf"(?:s3://|arn:aws[a-z-]*:s3:::|\b[Bb]ucket(?:_name|Name)?[\"']?\s*[=:]\s*[\"']){NAME}"
    rf"|{NAME}\.s3[.-][a-z0-9.-]*amazonaws\.com"
)


def disclosures() -> list[str]:
    """Each with its file. Needs .venv-scan."""
    files = tracked_files()
    return [*secrets(ROOT, files), *names(ROOT, files)]


def tracked_files() -> list[Path]:
    """What git has, or would have after `git add`."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in sorted(set(done.stdout.split("\0"))) if name and (path := ROOT / name).is_file()]


def secrets(root: Path, files: Iterable[Path]) -> list[str]:
    """What checkov takes for a secret in files below root. It opens no socket."""
    with tempfile.TemporaryDirectory() as scratch:
        for path in files:
            copy = Path(scratch, path.relative_to(root))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        command = [str(CHECKOV), "--framework", "secrets", "-d", scratch, "-o", "json", "--skip-download"]
        done = subprocess.run(
            [*command, "--enable-secret-scan-all-files"], cwd=scratch, capture_output=True, text=True, check=False
        )
    found = json.loads(done.stdout).get("results", {}).get("failed_checks", [])
    return [
        f"{file}: {check['check_name']}, line {check['file_line_range'][0]}"
        for check in found
        if ((file := check["file_path"].lstrip("/")), check["check_name"]) not in MADE_UP
    ]


def names(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """Account ids and bucket names that are not known to be made up or public."""
    for path in files:
        text, file = path.read_text(errors="replace"), path.relative_to(root)
        if not path.name.endswith(WITHOUT_ACCOUNTS):
            yield from (f"{file}: account id {found}" for found in sorted(set(ACCOUNT.findall(text)) - set(ACCOUNTS)))
        if not set(MADE_UP_BUCKETS) & set(file.parts):
            named = sorted({one or other for one, other in BUCKET.findall(text)} - BUCKETS)
            yield from (f"{file}: bucket {name}" for name in named)
