"""The one exception a user is meant to read. Knows nothing of what went wrong."""


class MitolumeError(Exception):
    """A fault that the user can mend.

    Its text is complete: it names the file, the value and the fix. The command line prints it
    without a traceback and ends with status 1.
    """


def shorten(error: BaseException, limit: int = 160) -> str:
    """Return the first line of another library's error, cut to `limit` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].rstrip(".")
    return text if len(text) <= limit else text[: limit - 1] + "…"


class DamagedError(MitolumeError):
    """A file that the program wrote itself can't be read; doing its work again mends it."""


class CollapsedError(MitolumeError):
    """Learning from unlabelled images has gone wrong, and was stopped; the first model stays."""
