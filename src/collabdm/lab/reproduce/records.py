"""Store the records of cells as JSON lines, with all that is needed to check or repeat a cell.

    digest, experiment, (scores, sets, [curve], bytes_per_step, taken_over | error),
    seconds, compute, machine, threads, versions, commit

A folder of records may come from several machines: all its `*.jsonl` files are read, and if a cell
has two records, the successful one counts. If a program stops in the middle of a line, that last
line is ignored, and the next record replaces it.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import Field, model_validator

from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError, OutputError
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import (
    Accuracies,
    AccuracyRecord,
    ComputeRecord,
    Count,
    Record,
    SetRecord,
    parse_record,
)
from collabdm.matching.compute import Compute

PACKAGE = Path(__file__).parents[2]


class CurveAccuracies(Record):
    """Accuracies of the set after a step of the server's refinement."""

    step: Count
    accuracies: Accuracies


class CellRecord(Record):
    """The result of one cell, or the error that it ended in.

    `experiment` contains the cell's settings, and `digest` identifies them. `seconds` are counted
    by part: sites, server, scoring. `taken_over` is the digest of the cell whose contributions, or
    set, were reused.
    """

    optional = frozenset({"error", "curve"})

    digest: str
    experiment: Experiment
    error: str | None = None
    scores: tuple[AccuracyRecord, ...] = ()
    sets: dict[str, SetRecord] = Field(default_factory=dict)
    curve: tuple[CurveAccuracies, ...] = ()
    bytes_per_step: Count | None = None
    taken_over: str | None = None
    seconds: dict[str, float]
    compute: ComputeRecord
    machine: str
    threads: Count
    versions: dict[str, str]
    commit: str | None

    @model_validator(mode="after")
    def _has_a_result_or_an_error(self) -> "CellRecord":
        if self.error is not None:
            return self

        if not self.scores or self.bytes_per_step is None:
            raise ValueError("should have an `error`, or `scores` and `bytes_per_step`")
        if self.experiment.method not in self.sets:
            raise ValueError(f"`sets` should contain {self.experiment.method}")
        return self

    @property
    def failed(self) -> bool:
        """Whether the cell ended in an error."""
        return self.error is not None

    @property
    def main_set(self) -> SetRecord:
        """The set of the cell's own method."""
        return self.sets[self.experiment.method]

    def absent_keys(self) -> set[str]:
        """Return the keys to omit: the results of a failed cell, or else unset optional keys."""
        results = {"scores", "sets", "curve", "bytes_per_step", "taken_over"}
        return results if self.failed else super().absent_keys()


def read_records(folder: Path) -> dict[str, CellRecord]:
    """Read all records in a folder, by the digest of their cells.

    Raises:
        DataError: A line is not a record.
    """
    records: dict[str, CellRecord] = {}

    for path in sorted(folder.glob("*.jsonl")):
        for record in records_of(path):
            if record.digest not in records or records[record.digest].failed:
                records[record.digest] = record

    return records


def records_of(path: Path) -> Iterator[CellRecord]:
    """Read the records in a file, in its order. Raises DataError if a line is not a record."""
    for number, line in enumerate(_whole_lines(path), 1):
        place = f"{path}, line {number}"
        yield parse_record(CellRecord, line, place, "remove that line, and run the cell again")


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Lock a file of records, so that two runs cannot compute the same cells at the same time.

    Raises OutputError if another process has locked it. The lock ends with the process.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{path} should be written by one `collabdm reproduce` at a time; found another: "
                "wait for it, or share the cells out with `--part`"
            ) from error
        yield


def append(path: Path, record: CellRecord) -> None:
    """Append a record to a file, first removing an incomplete last line."""
    path.parent.mkdir(parents=True, exist_ok=True)

    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)

        file.write(json.dumps(record.document()).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    try:
        text = read_regular(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} should be readable JSON lines; {error}") from error

    return [line for line in text[: text.rfind("\n") + 1].split("\n") if line.strip()]


def machine(compute: Compute) -> str:
    """Name the device of a computation; for a processor, state the number of threads."""
    if compute.device.startswith("cuda"):
        return torch.cuda.get_device_name(compute.device)

    model = _field(Path("/proc/cpuinfo"), "model name")
    described = model or platform.processor() or platform.machine()
    return f"{described}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores"


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def commit(source: Path = PACKAGE) -> str | None:
    """Return the git commit of the source files, with + if they were changed; None outside git."""

    def git(*words: str) -> str | None:
        command = ["git", *words]
        try:
            ran = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return ran.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None

    changed = git("status", "--porcelain", "--", str(source))
    return head + ("+" if changed else "")
