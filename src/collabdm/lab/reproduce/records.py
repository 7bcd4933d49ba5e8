"""What cells gave, as JSON lines: one record for each, with all that is needed to trust it or to make it again.

A record holds the cell's settings and their digest, scores, bytes, rounds, seconds by part, device, machine, versions
and git commit; that of a cell that failed holds the error instead. A folder of records may come from several machines:
all its `*.jsonl` files count, and of two records of one cell the one that succeeded. What a stopped program left
of a last line is passed over, and cut off by the next record.
"""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from collabdm.errors import DocumentError
from collabdm.matching.compute import Compute

Record = dict[str, Any]


def read_records(folder: Path) -> dict[str, Record]:
    """All records in a folder by the digest of their cells. Raises DocumentError where a line is not a record."""
    found: dict[str, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(_whole_lines(path), 1):
            try:
                record = json.loads(line)
                digest = record["digest"]
            except (ValueError, KeyError, TypeError) as error:
                raise DocumentError(
                    f"{path}, line {number} should be the record of a cell; found {line[:60]!r}: remove that line"
                ) from error
            if digest not in found or failed(found[digest]):
                found[digest] = record
    return found


def failed(record: Record) -> bool:
    """Whether the cell ended in an error."""
    return "error" in record


def append(path: Path, record: Record) -> None:
    """Write a record at the end, in one piece, after what is whole there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in text[: text.rfind("\n") + 1].split("\n") if line.strip()]


def machine(compute: Compute) -> str:
    """What computed: the model of the device, and how many threads a processor used."""
    if compute.device.startswith("cuda"):
        return torch.cuda.get_device_name(compute.device)
    described = _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()
    return f"{described}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores"


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def commit(source: Path = Path(__file__).parent) -> str | None:
    """The git commit that the program's files are of, with a + where they were changed since; None outside of git."""

    def git(*words: str) -> str | None:
        try:
            ran = subprocess.run(["git", *words], cwd=source, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return ran.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    return head if head is None else head + ("+" if git("status", "--porcelain", "--", str(source.parent)) else "")
