"""Everything that is installed or shipped is locked; nothing that is disclosed or advised against goes unnoticed."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from security import disclosures, supply

HASH = f"--hash=sha256:{'0' * 64}"


def test_every_requirement_is_locked_by_its_hash_and_no_lock_names_a_host():
    requirements = supply.locked_files()
    assert len(requirements) >= 8
    assert [fault for path in requirements for fault in supply.lock_faults(path)] == []


@pytest.mark.parametrize("shipped", ["lambda", "model"])
def test_what_is_shipped_is_what_the_tests_run_with(shipped):
    packages = supply.pins(disclosures.ROOT / shipped / "requirements.lock")
    assert packages and packages <= supply.pins(disclosures.ROOT / "requirements.lock")


@pytest.mark.parametrize("file", ["Makefile", "model/container/Dockerfile"])
def test_what_is_installed_is_what_is_locked(file):
    installs = [line for line in (disclosures.ROOT / file).read_text().splitlines() if "pip install" in line]
    assert installs and all("--require-hashes" in line for line in installs)


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (f"boto3==1.0 \\\n    {HASH}\n", None),
        (f"# boto3==1.0\nboto3==1.1 \\\n    {HASH}\n", "boto3==1.0 is not in it"),
        (f"boto3==1.0\nnumpy==2.0 \\\n    {HASH}\n", "no hash for boto3==1.0"),
        (f"--index-url https://index.example/simple\nboto3==1.0 \\\n    {HASH}\n", "names a host"),
        (None, "is missing"),
    ],
)
def test_a_lock_that_lacks_something_is_named(tmp_path, lock, said):
    path = tmp_path / "requirements.txt"
    path.write_text("# why\nBoto3[crt]==1.0  # pinned\n")
    if lock:
        path.with_suffix(".lock").write_text(lock)
    faults = supply.lock_faults(path)
    assert faults == [] if said is None else any(said in fault for fault in faults)


def test_an_explanation_of_a_version_that_no_lock_has_is_named(tmp_path, monkeypatch):
    advisories = tmp_path / "advisories.yaml"
    advisories.write_text("[{id: GHSA-1, package: boto3, version: '1.0', reason: The function is not called here.}]")
    monkeypatch.setattr(supply, "ADVISORIES", advisories)
    monkeypatch.setattr(supply, "audit", lambda locks: (0, []))
    assert supply.report() == ["advisories.yaml: GHSA-1 is of boto3==1.0, which no lock has"]


@pytest.fixture
def advised(monkeypatch):
    """Advisories by package, as a loopback server answers pip-audit that is asked as OSV is (osv.dev, schema 1)."""
    advisories: dict[str, list[str]] = {}

    class Osv(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            affected = [{"package": {"name": name, "ecosystem": "PyPI"}}]
            found = [{"id": one, "aliases": [f"CVE-{one}"], "affected": affected} for one in advisories.get(name, [])]
            content = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        yield advisories
        server.shutdown()


def test_an_advisory_is_a_finding_unless_it_is_explained(tmp_path, monkeypatch, advised):
    advisories, lock = tmp_path / "advisories.yaml", tmp_path / "requirements.lock"
    monkeypatch.setattr(supply, "ADVISORIES", advisories)
    lock.write_text(f"one==1 \\\n    {HASH}\ntwo==1 \\\n    {HASH}\n")
    advised |= {"one": ["GHSA-1"], "two": ["GHSA-2"]}
    for known, left in (
        ([], ["one==1: CVE-GHSA-1", "two==1: CVE-GHSA-2"]),
        ([("GHSA-1", "one", "1")], ["two==1: CVE-GHSA-2"]),
        ([("CVE-GHSA-1", "one", "1"), ("GHSA-2", "two", "1")], []),
        ([("GHSA-1", "one", "2"), ("GHSA-2", "one", "1")], ["one==1: CVE-GHSA-1", "two==1: CVE-GHSA-2"]),
    ):
        entries = [{"id": name, "package": package, "version": version} for name, package, version in known]
        advisories.write_text(json.dumps(entries))
        assert supply.audit([lock]) == (2, left)


def test_where_no_service_answers_nothing_is_audited(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"one==1 \\\n    {HASH}\n")
    with socket.socket() as refusing:  # bound, and listening to nobody
        refusing.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{refusing.getsockname()[1]}/v1/query")
        with pytest.raises(supply.OutOfReach, match=r"osv: .*refused"):
            supply.audit([lock])


def test_an_audit_that_could_not_look_anything_up_is_none():
    skipped = json.dumps({"dependencies": [{"name": "one", "skip_reason": "not found: one (1)"}]})
    with pytest.raises(supply.OutOfReach, match=r"not found: one \(1\)"):
        list(supply.looked_up(skipped))


def test_every_explanation_says_why_and_of_which_version():
    locked = {pin for path in supply.locked_files() for pin in supply.pins(path.with_suffix(".lock"))}
    for entry in supply.yaml.safe_load(supply.ADVISORIES.read_text()):
        assert entry.keys() == {"id", "package", "version", "reason"} and len(entry["reason"].split()) >= 5
        assert (entry["package"], entry["version"]) in locked


def test_the_repository_discloses_nothing():
    assert disclosures.disclosures() == []


def test_a_secret_an_account_and_a_bucket_are_found(tmp_path):
    # In pieces, or this file itself would be found.
    lines = {
        "credentials.txt": "AWS_ACCESS_KEY_ID=AKIA" + "Q3EGRZ4T7UHS6VXB",
        "key.pem": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
        "role.tf": 'role = "arn:aws:iam::' + "2109" + '87654321:role/admin"',
        "load.sh": "aws s3 cp s3:" + "//acme-production-data/a .",
        "main.tf": 'bucket = "' + 'acme-data"',
        "picture.txt": "https://acme-pictures" + ".s3.eu-west-1.amazonaws.com/a.png",
        "upload.py": 's3.put_object(Bucket="' + 'acme-uploads", Key="a")',
    }
    for name, line in lines.items():
        (tmp_path / name).write_text(line + "\n")
    files = sorted(tmp_path.iterdir())
    assert {line.partition(":")[0] for line in disclosures.secrets(tmp_path, files)} == {"credentials.txt", "key.pem"}
    assert list(disclosures.names(tmp_path, files)) == [
        "load.sh: bucket acme-production-data",
        "main.tf: bucket acme-data",
        "picture.txt: bucket acme-pictures",
        "role.tf: account id 2109" + "87654321",
        "upload.py: bucket acme-uploads",
    ]
