"""Before a round between machines: `check` tells a site what is wrong, all at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.console import table
from collabdm.cli.options import Data, PlanPath, Resize, Rows, app, console
from collabdm.documents.plan_file import read_plan
from collabdm.errors import CollabDMError
from collabdm.flower.connection import check_flower, check_key, check_server
from collabdm.rounds.exchange import DataSource, Site, load_for_plan, prepare_site
from collabdm.rounds.inspect import Row
from collabdm.rounds.policy import preview_contribution, read_policy


@app.command()
def check(
    plan: PlanPath,
    data: Data,
    site: Annotated[str, typer.Option(help="This site's name.")],
    policy: Annotated[Path | None, typer.Option(help="A TOML file: what this site allows. Else everything.")] = None,
    server: Annotated[str | None, typer.Option(help="The server's HOST:PORT; else no connection is tried.")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="The certificate that signed the server's, a PEM file.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="This node's private key.")] = None,
    resize: Resize = False,
    rows: Rows = None,
) -> None:
    """Say what is wrong at a site before a round: the way to the server, the plan, the data, the policy."""
    found: list[Row] = []

    def asked_for() -> str:
        agreed = read_plan(plan)
        held = load_for_plan(agreed, DataSource(data, resize, rows))
        prepared = prepare_site(agreed, held, Site(site, read_policy(policy)))
        found.extend(
            (f"would send: {part}", value) for part, value in preview_contribution(agreed, prepared.data, site)
        )
        return "the plan can be answered, and this machine computes what its author did"

    checks: list[tuple[str, Callable[[], str]]] = [("plan, data, policy", asked_for)]
    if server is not None:
        checks = [("flower", check_flower), ("server", lambda: check_server(server, root_certificates)), *checks]
    if key is not None:
        checks = [("key", lambda: check_key(key)), *checks]
    wrong = [name for name, one in checks if not _run(name, one, found)]
    console.print(table("Before the round", ("what", "found"), found, figures=False))
    if wrong:
        raise CollabDMError(f"{', '.join(wrong)} should be mended before the round; the table says how")


def _run(name: str, one: Callable[[], str], rows: list[Row]) -> bool:
    try:
        rows.append((name, one()))
    except CollabDMError as error:
        rows.append((name, f"WRONG: {error}"))
        return False
    return True
