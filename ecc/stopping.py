"""How a job ends when it is asked to: at once, or where it can save what it has.

A time limit, a preemption and Ctrl-C all send a signal first. Outside of `deferred` it ends the
process then and there; inside, the next `leave_if_asked` does. The exit code tells of the signal.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked: int | None = None  # the signal's number
_deferred = 0
_patient = False


def listen(patient: bool = False) -> None:
    """From now on signals mean what this module says. Call it in the main thread.

    `patient`: as many as come wait where they are deferred. So they do in a process of several,
    which may get one of its own and that of its parent; the parent kills it if need be.
    """
    global _patient
    _patient = patient
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


@contextmanager
def deferred(wanted: bool = True) -> Iterator[None]:
    """A signal waits for `leave_if_asked`, or for the end of the block. A second one does not."""
    global _deferred
    # Python hears signals in its main thread alone.
    wanted = wanted and threading.current_thread() is threading.main_thread()
    _deferred += wanted
    try:
        yield
    finally:
        _deferred -= wanted
    if not _deferred:
        leave_if_asked()


def asked() -> bool:
    """Whether the process is to end at the next safe point."""
    return _asked is not None


def number() -> int:
    """The signal that the process was sent; 0 for none."""
    return _asked or 0


def ask(number: int) -> None:
    """The process is to end as if it had been sent this signal, unless it was sent one."""
    global _asked
    _asked = _asked or number or None


def leave_if_asked() -> None:
    """Ends the process, as an exception, so that unfinished files are removed."""
    if _asked is not None:
        sys.exit(128 + _asked)


def alive(process: int) -> bool:
    """Whether a process of this machine is there, by its id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _note(number: int, _: FrameType | None) -> None:
    global _asked
    before, _asked = _asked, number
    if not _deferred or (before is not None and not _patient):
        leave_if_asked()
