"""How building ends where it does not succeed: each one line, without a traceback."""


class Mistake(Exception):
    """The user's: what is wrong, with the value and the remedy. Exit status 2."""


class Failed(Exception):
    """A tool's or the account's: what failed, and where to look. Exit status 1."""
