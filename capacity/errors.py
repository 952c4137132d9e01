"""What the command answers with one line, and exit status 2 or 3."""


class UserError(Exception):
    """A user's mistake; the message names the thing, its value and the remedy, and where it stands."""


class NothingKeepsTheSLO(Exception):
    """No configuration does; the message says what comes closest. Exit status 3."""
