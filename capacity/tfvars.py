"""Read variable files and module variables as Terraform does, keeping where each value was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
from hcl2.utils import SerializationOptions
from lark import Tree, UnexpectedInput

from capacity.errors import UserError

TERRAFORM_DIR = Path(__file__).resolve().parents[1] / "terraform"
PLAIN_VALUES = SerializationOptions(
    with_comments=False, strip_string_quotes=True, preserve_heredocs=False, preserve_scientific_notation=False
)


@dataclass(frozen=True)
class Setting:
    """A variable's value and the place that set it, `FILE:LINE`."""

    value: Any
    place: str


def read(paths: Sequence[Path]) -> dict[str, Setting]:
    """The settings of variable files; a later file wins, as with several -var-file options.

    Raises UserError, naming file and line, for what Terraform refuses or warns of: syntax, a name that
    terraform/variables.tf does not declare, a name set twice in a file, an expression in place of a value.
    """
    declared = variables(TERRAFORM_DIR)
    settings: dict[str, Setting] = {}
    for path in paths:
        found = _settings_of(path)
        for name, setting in found.items():
            if name not in declared:
                raise UserError(
                    f"{setting.place}: {name} is no variable of terraform/variables.tf: correct or remove it"
                )
        settings |= found
    return settings


@cache
def variables(module: Path) -> dict[str, dict[str, Any]]:
    """The body of each variable in a module's variables.tf, by name; `default` is in it where there is one."""
    document = hcl2.loads((module / "variables.tf").read_text(), serialization_options=PLAIN_VALUES)
    return {name: body for variable in document["variable"] for name, body in variable.items()}


def _settings_of(path: Path) -> dict[str, Setting]:
    try:
        tree = hcl2.parses_to_tree(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except UnexpectedInput as error:
        # At the end of a line the parser stops before the line break, wherever the next token begins.
        raise UserError(f"{path}:{max(error.line, 1)}: not a NAME = VALUE that Terraform reads") from None
    lines = _lines(path, tree)
    values = hcl2.serialize(hcl2.transform(tree, discard_comments=True), serialization_options=PLAIN_VALUES)
    settings = {}
    for name, line in lines.items():
        place = f"{path}:{line}"
        if _is_expression(values[name]):
            raise UserError(f"{place}: {name} is an expression: a variable file holds plain values")
        settings[name] = Setting(values[name], place)
    return settings


def _lines(path: Path, tree: Tree) -> dict[str, int]:
    """The line of each attribute, which the serialized values do not tell."""
    lines: dict[str, int] = {}
    for statement in tree.children[0].children:
        if not isinstance(statement, Tree) or statement.data == "new_line_or_comment":
            continue
        name, line = next(statement.scan_values(lambda token: token.type == "NAME")), statement.meta.line
        if statement.data != "attribute":
            raise UserError(f"{path}:{line}: {name} is a block: a variable file holds NAME = VALUE lines")
        if name in lines:
            raise UserError(f"{path}:{line}: {name} is set on line {lines[name]} already: remove one of them")
        # Terraform wants them apart; the parser does not mind.
        if line in lines.values():
            raise UserError(f"{path}:{line}: {name} follows another setting on its line: give it a line of its own")
        lines[str(name)] = line
    return lines


def _is_expression(value: Any) -> bool:
    """Whether a value, or a part of it, would have to be evaluated (the parser gives it back as "${...}")."""
    if isinstance(value, dict):
        return any(map(_is_expression, value.values()))
    if isinstance(value, list):
        return any(map(_is_expression, value))
    return isinstance(value, str) and "${" in value.replace("$${", "")
