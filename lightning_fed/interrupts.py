"""Ctrl-C and SIGTERM end a command in one way, wherever in a library they arrive.

Python raises `KeyboardInterrupt` between any two instructions of the main thread. In a callback of compiled code
or in a clean-up of a library it can come out as another error, or be swallowed. So the handler also keeps in mind
that the user asked: an error after that is taken for the interrupt, and a loop can look.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()
_heard = threading.Lock()
"""Held by the outermost command of the main thread."""


def asked() -> bool:
    """Whether Ctrl-C or SIGTERM came since the command began."""
    return _asked.is_set()


def stop_if_asked() -> None:
    """Raise the interrupt that something swallowed.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came since the command began.
    """
    if asked():
        raise KeyboardInterrupt


@contextmanager
def heard() -> Iterator[None]:
    """Around a command: both signals raise `KeyboardInterrupt`, and are kept in mind.

    SIGINT stays ignored where it was, as a shell wants of jobs in the background. Outside of the main thread, and
    within another command, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread() or not _heard.acquire(blocking=False):
        yield
        return
    _asked.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if number == signal.SIGTERM or handler is not signal.SIG_IGN:
            signal.signal(number, _hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # of compiled code: it cannot be put back
                signal.signal(number, handler)
        _asked.clear()
        _heard.release()


@contextmanager
def taken_as_such() -> Iterator[None]:
    """An error inside, after the user asked to stop, comes out as the interrupt.

    Raises:
        KeyboardInterrupt: from the error.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if asked():
            raise KeyboardInterrupt from error
        raise


def _hear(number: int, frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt
