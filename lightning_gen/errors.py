"""The one exception whose message is meant for a person at a terminal, and the exit status that says: try again."""

EXIT_TRY_AGAIN = 75
"""Exit status of a run that ended where it can go on: EX_TEMPFAIL of sysexits.h."""


class UserError(Exception):
    """Something the user can mend; the message is one line that names the cause and the remedy.

    The commands print it without a traceback and exit with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
