"""Every line of the table of inputs names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_guide_to_data_names_a_test() -> None:
    page = (ROOT / "docs" / "guide-data.md").read_text(encoding="utf-8")
    rows = [
        line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| ---")
    ]
    named = [
        re.findall(r"`(test_\w+)`", row) for row in rows if not row.lower().startswith("| input |")
    ]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    tests = set(re.findall(r"def (test_\w+)\(", sources))
    assert named
    assert [names for names in named if not names or not set(names) <= tests] == []
