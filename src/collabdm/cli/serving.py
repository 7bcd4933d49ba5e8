"""Run the operator's page: serve it, and carry out its jobs in this thread, until Ctrl-C."""

import threading
import webbrowser
from pathlib import Path

from collabdm.cli.console import console
from collabdm.documents.codec import read_limited
from collabdm.documents.plan_file import PLAN_LIMIT
from collabdm.site_page.server import PageServer
from collabdm.site_page.work import Work

WAIT_SECONDS = 1.0  # for a job; Ctrl-C ends a wait, but not on every system at once


def serve(work: Work, plan: Path | None, port: int, open_browser: bool) -> None:
    """Print the address of the page, and serve it until the process is stopped.

    Args:
        work: the settings, and the form with which the page starts.
        plan: a plan to start with; None lets the operator choose one.
        port: the port; 0 takes a free one.
        open_browser: whether to open the page in the user's browser.

    Raises:
        CollabDMError: the plan cannot be read, or the port cannot be used.
        KeyboardInterrupt: always in the end.
    """
    if plan is not None:
        work.take_plan(read_limited(plan, PLAN_LIMIT), plan.name)

    with PageServer(work, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            console.print(server.address, soft_wrap=True, highlight=False)
            console.print("for this machine alone, until Ctrl-C", soft_wrap=True)
            if open_browser:
                webbrowser.open(server.address)
            while True:
                work.run_next(WAIT_SECONDS)
        finally:
            server.shutdown()
