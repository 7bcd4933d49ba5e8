"""Name the page of a report and its plots."""

from collections.abc import Sequence
from pathlib import Path

PAGE = "report.html"  # in the folder of a round


def describe_page(written: Sequence[Path]) -> str:
    """Describe the files of a report: the page, and the number and the folder of its plots."""
    page, *plots = written
    folder = page.with_suffix("")
    return f"{page}, and {len(plots) // 2} plots as SVG and PNG in {folder}" if plots else str(page)
