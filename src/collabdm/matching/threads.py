"""Choose the number of processor threads from what is free on this machine.

    threads = min(quota, cores (1 - others / all cores)),  at least 1

`cores` are those that the process may run on, out of all cores of the machine, and the quota is
that of its control group. The other processes that run are counted by the smaller of two numbers:
the load average of the last minute, and the number of processes that run at this moment, so that
neither a command that has just ended nor a short peak counts. The number of threads changes the
rounding of long sums: `--threads`, or the variable OMP_NUM_THREADS, fixes it.
"""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

SAMPLES, PAUSE = 5, 0.01  # of the processes that run at this moment; seconds

_GROUPS = Path("/sys/fs/cgroup")
_LOAD = Path("/proc/loadavg")


@dataclass(frozen=True)
class Threads:
    """A number of threads, with the reason for it."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.number} {'thread' if self.number == 1 else 'threads'} ({self.reason})"


class _Fixed:
    """Whether the user has set the number of threads of this process."""

    by_user = False


def set_threads(requested: int = 0) -> Threads:
    """Set the number of threads of this process; 0 chooses it from what is free."""
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if not requested and variable.isdecimal():
        requested, reason = max(1, int(variable)), "OMP_NUM_THREADS"
    else:
        reason = "--threads"

    _Fixed.by_user = requested > 0
    threads = Threads(requested, reason) if requested else free_threads()
    torch.set_num_threads(threads.number)
    return threads


def adopt_threads(number: int) -> bool:
    """Use the number of threads of interrupted work; False if the user has set another one."""
    if number != torch.get_num_threads():
        if _Fixed.by_user:
            return False
        torch.set_num_threads(number)
    return True


def free_threads() -> Threads:
    """Count the cores that this process may use and nobody else does."""
    cores, machine = affinity(), os.cpu_count() or 1
    busy = others_running()
    free = round(cores * (1 - busy / machine))

    limit = quota()
    number = max(1, min(free, cores if limit is None else math.ceil(limit)))
    limited = "" if limit is None else f", quota {limit:g}"
    return Threads(number, f"{cores} {'core' if cores == 1 else 'cores'}{limited}, load {busy:.1f}")


def affinity() -> int:
    """Return the number of cores that this process may run on."""
    scheduler = getattr(os, "sched_getaffinity", None)
    return len(scheduler(0)) if scheduler else os.cpu_count() or 1


def quota(folder: Path = _GROUPS) -> float | None:
    """Return the cores that the control group of this process may use; None without a limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            allowed, period = " ".join((folder / name).read_text() for name in names).split()[:2]
            return int(allowed) / int(period) if int(allowed) > 0 else None
        except (OSError, ValueError):  # another version of control groups, or no limit ("max")
            continue
    return None


def others_running() -> float:
    """Estimate how many other processes compute: the smaller of the load and of those running."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # not known on this system
        return 0.0
    return min(load, _running_now(load))


def _running_now(otherwise: float) -> float:
    """Return the median number of running processes besides this one, over a few moments."""
    counts = []
    for _ in range(SAMPLES):
        try:
            counts.append(int(_LOAD.read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return otherwise
        time.sleep(PAUSE)
    return float(sorted(counts)[SAMPLES // 2])
