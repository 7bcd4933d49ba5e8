"""Switch Flower's telemetry off in the process of an app, unless the environment switches it on.

Flower reads the environment variable when it is imported, which is before it loads an app. Its own
programs (`flower-supernode`, `flower-superlink`) run in other processes, and read it when they
start.
"""

import contextlib
import importlib
import os

TELEMETRY = "FLWR_TELEMETRY_ENABLED"

_MODULES = ("flwr.supercore.telemetry", "flwr.common.telemetry")  # of different versions


def switch_off_telemetry() -> None:
    """Send no usage events from this process; an explicit setting of the environment is kept."""
    if os.environ.setdefault(TELEMETRY, "0") != "0":
        return
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            if hasattr(module, TELEMETRY):
                setattr(module, TELEMETRY, "0")
