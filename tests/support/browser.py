"""A page in a browser without a screen: what it says of itself at a given width."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PROBE = """
<script>
window.problems = [];
window.addEventListener("error", event => problems.push(event.message || event.target.src), true);
window.addEventListener("load", () => {
  const small = document.querySelector("button.zoom"), view = document.querySelector("dialog");
  const wide = [...document.querySelectorAll(".wide")];
  const scrolling = wide.filter(one => one.scrollWidth > one.clientWidth + 1).length;
  const hints = [...document.querySelectorAll(".hint")].filter(one => one.getClientRects().length).length;
  if (small) small.click();
  const state = {
    problems, width: document.documentElement.scrollWidth, seen: innerWidth,
    pictures: document.images.length, hints, scrolling,
    smallest: Math.min(...[...document.querySelectorAll(".strip img")].map(one => one.getBoundingClientRect().width)),
    colours: [...document.querySelectorAll(".key")].map(one => [one.parentElement.innerText.trim(), getComputedStyle(one).color]),
    zoomed: view.open,
    broken: [...document.images].filter(one => one.src && (!one.complete || !one.naturalWidth)).length,
    plots: [...document.querySelectorAll("svg")].filter(one => one.getBoundingClientRect().width > 200).length,
  };
  if (small) view.close();
  document.title = JSON.stringify(state);
});
</script>
"""


def state_of(html: str, place: Path, width: int) -> dict[str, Any]:
    """Show a page in a frame of some width; what went wrong, how wide it is, pictures and plots. Skips without one."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    # a window of Chromium is at least 500 pixels wide: a frame has the width of a phone
    (place / "page.html").write_text(html.replace("<head>", "<head>" + PROBE), encoding="utf-8")
    frame = f"""<!doctype html><title>waiting</title><body style="margin:0"><script>
      const frame = document.createElement("iframe");
      frame.style = "width:{width}px;height:2000px;border:0";
      frame.src = "page.html";
      frame.addEventListener("load", () => setTimeout(() => {{
        const told = document.createElement("pre");
        told.id = "told";
        told.textContent = frame.contentDocument.title;
        document.body.append(told);
      }}, 200));
      document.body.append(frame);
    </script>"""
    (place / "frame.html").write_text(frame, encoding="utf-8")
    command = [
        browser, *QUIET, "--allow-file-access-from-files", f"--user-data-dir={place / 'profile'}",
        "--window-size=1400,2000", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom",
        (place / "frame.html").as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'<pre id="told">(.*?)</pre>', ran.stdout)
    assert found, ran.stdout[-500:] + ran.stderr[-2000:]
    assert not re.findall(r"CONSOLE.*", ran.stderr)
    return json.loads(unescape(found[1]))
