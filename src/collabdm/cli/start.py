"""Start the command line; importing it takes a moment, in which Ctrl-C is caught as well."""

import signal
import sys
from types import FrameType

from collabdm.openmp import wait_passively

STOPPED, TERMINATED = 130, 143  # exit codes


def start() -> None:
    """Run the command line, and end without a traceback if Ctrl-C is pressed during the import.

    SIGTERM ends the program like an error, so that temporary files are removed.
    """
    wait_passively()
    signal.signal(signal.SIGTERM, _end)
    try:
        from collabdm.cli.main import main
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    main()


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
