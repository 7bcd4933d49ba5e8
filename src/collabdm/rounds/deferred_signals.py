"""Delay Ctrl-C and SIGTERM to the end of an iteration, when the work can be stored.

A signal that arrives within an iteration would leave tensors half updated. While work with
checkpoints runs, the first signal is therefore noted, and delivered after the next checkpoint. It
is delivered at once if there has been no checkpoint yet, if a second signal arrives, or after
`LONGEST_DELAY` seconds; the work then continues from the last checkpoint that was stored.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST_DELAY = 10.0  # seconds


class DeferredSignals:
    """The signals of this process, noted while any work with checkpoints runs.

    Attributes:
        pending: the signal that was noted; None without one.
        worth_waiting: whether a checkpoint has been made that a delay would save.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.worth_waiting = False
        self._depth = 0  # work within work, such as the round of a simulation
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Note signals from now on; like all methods, only in the main thread."""
        if not _in_main_thread():
            return
        self._depth += 1
        if self._depth == 1:
            self.pending, self.worth_waiting = None, False
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            ignored = (signal.SIG_IGN, None)
            self._previous = {
                n: handler for n, handler in handlers.items() if handler not in ignored
            }
            for number in self._previous:
                signal.signal(number, self._note)

    def stop(self) -> None:
        """Restore the earlier handlers, when the outermost work ends."""
        if not _in_main_thread():
            return
        self._depth -= 1
        if self._depth == 0:
            self._restore()

    def checkpoint_made(self) -> bool:
        """Note that the work has a checkpoint; return whether a signal waits for it."""
        if not _in_main_thread():
            return False
        self.worth_waiting = True
        return self.pending is not None

    def finished(self) -> bool:
        """Note that work is finished and written; return whether a signal waits."""
        if not _in_main_thread():
            return False
        self.worth_waiting = False
        return self.pending is not None

    def deliver(self) -> None:
        """Restore the earlier handlers, and pass the noted signal on to them."""
        number, self.pending = self.pending, None
        self._restore()
        if number is not None:
            signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        second, self.pending = self.pending is not None, number
        if second or not self.worth_waiting:
            self.deliver()
            return
        self._timer = threading.Timer(LONGEST_DELAY, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()

    def _restore(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


DEFERRED = DeferredSignals()
