"""The one exception whose message is meant for a person at a terminal."""


class UserError(Exception):
    """Something the user can mend; the message is one line that names the cause and the remedy.

    The commands print it without a traceback and exit with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
