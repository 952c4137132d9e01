"""What the entry points share as commands: flags, mistakes as one line, and how a SageMaker job learns of a failure."""

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from classifier.mistake import Mistake

# Of the file `failure` SageMaker shows so much as the job's FailureReason.
FAILURE_CHARACTERS = 1024
# The tuner and the training image add such flags of their own to every script's arguments.
FOREIGN_FLAGS = ("--_", "--sagemaker_")
# No room on the disk, in the quota, or below the limit of a file's size.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """Refuses unknown flags but for the ones SageMaker adds, and reports a mistake in one line."""

    def __init__(self, description: str):
        super().__init__(
            # The usage line would name each flag a second time.
            usage="%(prog)s [flags]",
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def parse(self, arguments: list[str] | None = None) -> argparse.Namespace:
        """The options; raises Mistake."""
        options, unknown = self.parse_known_args(arguments)
        ours, value_may_follow = [], False
        for word in unknown:
            if word.startswith(FOREIGN_FLAGS):
                value_may_follow = True
            elif value_may_follow and not word.startswith("--"):
                value_may_follow = False
            else:
                ours.append(word)
        if ours:
            self.error(f"unknown argument {ours[0]}")
        return options

    def error(self, message: str) -> NoReturn:
        raise Mistake(f"{message} (see --help)")


class Switch(argparse.Action):
    """`--name`, `--no-name`, and `--name true|false`, which is how SageMaker passes a boolean hyperparameter."""

    def __init__(self, option_strings, dest, **keywords):
        both = [*option_strings, *(f"--no-{option[2:]}" for option in option_strings)]
        super().__init__(both, dest, nargs="?", metavar="true|false", **keywords)

    def __call__(self, parser, namespace, value, option_string=None):
        meant = {None: True, "true": True, "1": True, "false": False, "0": False}.get(value and value.lower())
        if meant is None:
            parser.error(f"{option_string} {value}: true or false is expected")
        setattr(namespace, self.dest, meant != option_string.startswith("--no-"))


class _Formatter(argparse.HelpFormatter):
    """A line a flag."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Switch):
            return f"--[no-]{action.option_strings[0][2:]}"
        return super()._format_action_invocation(action)


def positive_int(text: str) -> int:
    """An argparse type: 1, 2, ..."""
    return _number(int, text, lambda value: value >= 1, "a whole number from 1")


def natural_int(text: str) -> int:
    """An argparse type: 0, 1, ..."""
    return _number(int, text, lambda value: value >= 0, "a whole number from 0")


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    return _number(float, text, lambda value: 0 < value < float("inf"), "a number above 0")


def natural_float(text: str) -> float:
    """An argparse type: a finite number from 0."""
    return _number(float, text, lambda value: 0 <= value < float("inf"), "a number from 0")


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1, without 1."""
    return _number(float, text, lambda value: 0 <= value < 1, "a number from 0 and below 1")


def _number(kind: type, text: str, accepts: Callable, expected: str):
    try:
        if accepts(value := kind(text)):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is not {expected}")


def run(main: Callable[[], None]) -> NoReturn:
    """Run an entry point and exit: 0, 2 with one line for a user's mistake, 1 with a traceback for anything else."""
    try:
        main()
    except Mistake as mistake:
        _end(str(mistake))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in DISK_FULL:
            _report_failure(traceback.format_exc()[-FAILURE_CHARACTERS:])
            raise
        _end(f"{error.filename or 'the disk'}: {error.strerror}: make room, or write elsewhere (see --help)")
    except Exception:
        # The end of a traceback says what happened; its beginning is always the same.
        _report_failure(traceback.format_exc()[-FAILURE_CHARACTERS:])
        raise
    sys.exit(0)


def _end(mistake: str) -> NoReturn:
    _report_failure(mistake)
    print(f"{Path(sys.argv[0]).name}: {mistake}", file=sys.stderr)
    sys.exit(2)


def _report_failure(text: str) -> None:
    """Where SageMaker looks for the reason; the failure itself counts more than a full disk here."""
    folder = Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output"))
    if "SM_MODEL_DIR" in os.environ and folder.is_dir():
        with contextlib.suppress(OSError):
            (folder / "failure").write_text(text[:FAILURE_CHARACTERS])
