"""A time limit for the user's code in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from anynorm.errors import AnynormError

__all__ = ["SECONDS", "within"]

# If a model needs longer to be built and to process one batch, training is not possible.
SECONDS = 600.0


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Interrupt the block after `seconds`, as Ctrl-C would; this works only in the main thread.

    Raises `AnynormError` with a message that `what` had not finished.

    >>> with within(0.01, "waiting"):  # doctest: +ELLIPSIS
    ...     threading.Event().wait(60)
    Traceback (most recent call last):
    ...
    anynorm.errors.AnynormError: waiting had not finished after 0.01 seconds. If ...
    """
    if threading.current_thread() is not threading.main_thread() or seconds > threading.TIMEOUT_MAX:
        yield
        return
    # A process that a shell started in the background ignores SIGINT, so restore its handler.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    over = threading.Event()
    timer = threading.Timer(seconds, _interrupt, [over])
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        raise AnynormError(
            f"{what} had not finished after {seconds:g} seconds. If it needs more time, give "
            "run_minutes= (--run-minutes)."
        ) from None
    finally:
        timer.cancel()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(over: threading.Event) -> None:
    over.set()
    if hasattr(signal, "pthread_kill"):  # this also interrupts sleeping and waiting
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
