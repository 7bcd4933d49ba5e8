"""Let idle OpenMP threads sleep; this module is imported before PyTorch.

PyTorch computes with the threads of GNU OpenMP, which reads the variable when it is loaded. By
default an idle thread spins for some milliseconds after every operation. If other processes need
the cores, this takes their time, and that of the thread that is waited for.
"""

import os


def wait_passively() -> None:
    """Make idle threads sleep, unless the environment sets a policy."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
