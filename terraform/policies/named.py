"""What the policies of this folder read of a scan: names as a plan knows them, and the source often does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

UNRESOLVED = ("aws_", "data.", "each.", "jsonencode", "local.", "module.", "var.")
AFTER_APPLY = "true_after_unknown"  # checkov's word, with EVAL_TF_PLAN_AFTER_UNKNOWN


def value(conf: dict[str, Any], key: str) -> Any:
    """An attribute of a checked resource, out of the list that checkov puts around it; None for what is not known."""
    found = conf.get(key)
    while isinstance(found, list) and len(found) == 1:
        [found] = found
    return known(found)


def known(found: Any) -> Any:
    """None for what only a plan, or only the apply, resolves."""
    later = isinstance(found, str) and (found.startswith(UNRESOLVED) or "${" in found or found == AFTER_APPLY)
    return None if later else found


def resources(graph: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Attributes of every resource of a type in the scan."""
    for _, attributes in graph.nodes():
        if attributes.get("resource_type") == kind:
            yield attributes
