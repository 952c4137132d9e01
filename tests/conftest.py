"""What every room's tests share: a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A variable that names a missing file makes terraform warn at every command.
if not Path(os.environ.get("TF_CLI_CONFIG_FILE", __file__)).is_file():
    del os.environ["TF_CLI_CONFIG_FILE"]

# No test reaches a real account, whatever credentials the developer's shell carries.
for variable in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
    del os.environ[variable]
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A fault stands in the report by its name, where `make security` counts it."""
    for item in items:
        if item.get_closest_marker("fault"):
            item.user_properties.append(("fault", item.name))
