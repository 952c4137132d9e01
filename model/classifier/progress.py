"""A progress bar on a terminal, and nothing off it: logs are read by machines."""

import os
import sys


def show(what: str, done: int, total: int) -> None:
    """Redraw the bar on stderr; it wipes itself when done, so that the next line of output starts clean."""
    # A dumb terminal cannot redraw a line; several processes that share one call theirs so.
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return
    if done >= total:
        sys.stderr.write("\r\x1b[K")
    else:
        filled = 30 * done // total
        sys.stderr.write(f"\r\x1b[K{what} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}")
    sys.stderr.flush()
