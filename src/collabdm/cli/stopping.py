"""Stop a command between two pieces of its work, when Ctrl-C or SIGTERM asks for it.

A second signal stops it at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """A command that ended because of a signal, and has reported that itself.

    Attributes:
        code: the exit code.
    """

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(f"stopped by signal {number}")


class StopRequest:
    """The signal that asks a command to stop; `signal` is None before one arrives."""

    signal: int | None = None

    def __bool__(self) -> bool:
        """Return whether the command should stop."""
        return self.signal is not None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note signals within the block instead of raising exceptions; ignored ones stay ignored."""
    request = StopRequest()
    handlers = {n: h for n in SIGNALS if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number
        for own, handler in handlers.items():
            signal.signal(own, handler)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
