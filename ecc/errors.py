"""The exceptions that a user is meant to see."""

import errno
import re

_SPACE, _RIGHTS = "free some space", "make it writable"
_REFUSED = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


class UserError(Exception):
    """Something in the input is wrong: one line that names the key or file and says what to do."""


class DivergedError(UserError):
    """The loss of a training is no number: of the network and the learning rate, not a fault."""


def require(settings: object, prefix: str, /, **within: bool) -> None:
    """Raises UserError for the first of the settings, by name, that is not within its range."""
    for key, inside in within.items():
        if not inside:
            raise UserError(f"{prefix}{key}: {getattr(settings, key)} is out of its range")


def refused(error: BaseException) -> str | None:
    """What to do where `error` says that a disk takes nothing; None for any other error.

    safetensors gives the number of the error in its text alone.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    advice = _REFUSED.get(number or 0)
    return advice and f"{advice}, then run the same command"
