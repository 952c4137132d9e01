"""A user's mistake: one line on stderr and exit status 2, no traceback."""


class Mistake(Exception):
    """What is wrong, with the value and the remedy, in one line."""
