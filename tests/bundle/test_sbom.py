"""The lists of what is shipped: valid, the same each time, and of what is really in there."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile

import pytest

from bundle import sbom

VALIDATE = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
validator = JsonStrictValidator(SchemaVersion.V1_6)
for name, text in json.load(sys.stdin).items():
    if error := validator.validate_str(text):
        sys.exit(f"{name}: {error}")
"""


@pytest.fixture(scope="module")
def bills():
    """Each list as written, by what it is of."""
    if not (sbom.PROJECT / "build" / "lambda.zip").is_file() or not sbom.CYCLONEDX.is_file():
        pytest.skip("nothing is packaged; run make setup package")
    assert sbom.main() == 0
    return {name: (sbom.PROJECT / "build" / "sbom" / f"{name}.cdx.json").read_text() for name in sbom.SHIPPED}


def test_the_lists_are_valid_and_the_same_each_time(bills):
    command = [sbom.CYCLONEDX.with_name("python"), "-c", VALIDATE]
    checked = subprocess.run(command, input=json.dumps(bills), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert sbom.main() == 0
    for name, text in bills.items():
        assert (sbom.PROJECT / "build" / "sbom" / f"{name}.cdx.json").read_text() == text


def test_what_the_lambdas_list_names_is_what_its_zip_holds(bills):
    bill = json.loads(bills["lambda"])
    package = sbom.PROJECT / "build" / "lambda.zip"
    [digest] = bill["metadata"]["component"]["hashes"]
    assert digest["content"] == hashlib.sha256(package.read_bytes()).hexdigest()
    with zipfile.ZipFile(package) as archive:
        held = {match.groups() for name in archive.namelist() if (match := re.match(r"([^/]+)-(.+)\.dist-info/", name))}
    listed = {(part["name"].replace("-", "_"), part["version"]) for part in bill["components"]}
    assert held and held == listed


def test_every_package_of_a_list_has_its_hashes(bills):
    for text in bills.values():
        for part in json.loads(text)["components"]:
            assert any(reference.get("hashes") for reference in part["externalReferences"]), part["name"]


def test_without_packages_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sbom, "PROJECT", tmp_path)
    assert sbom.main() == 2
    assert "run make package" in capsys.readouterr().err
