"""Tables of flows: `schema` drafts what sites agree on about them, `synthetic-flows` writes some to try with."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import app, check_output, console
from collabdm.flows.built_in import SCHEMAS
from collabdm.flows.chunks import some
from collabdm.flows.draft import draft
from collabdm.flows.synthetic import PUBLISHED_COUNTS, write_synthetic
from collabdm.whole import write_whole


@app.command("schema")
def schema_command(
    sample: Annotated[str, typer.Argument(metavar="SAMPLE", help=f"A public sample table, or {', '.join(SCHEMAS)}.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the schema.")],
    label: Annotated[str | None, typer.Option(help="The column of the label; if not said, a usual name.")] = None,
    side: Annotated[int, typer.Option(min=8, max=128, help="Height and width of an image.")] = 32,
    leave_out: Annotated[list[str] | None, typer.Option(help="A column to leave out; can be said again.")] = None,
) -> None:
    """Draft a schema of flows from a sample, for a person to read and mend; or write a built-in one."""
    check_output(output, Path(sample))
    left: tuple[str, ...] = ()
    if sample in SCHEMAS:
        made = SCHEMAS[sample]
    else:
        made, left = (drafted := draft(Path(sample), label, side, leave_out or ())).schema, drafted.left_out
    write_whole(output, (made.model_dump_json(indent=2) + "\n").encode())
    console.print(
        f"{output}: {len(made.features)} features, {made.flows} rows an image of side {made.side}\n"
        f"classes: {', '.join(made.classes)}\n"
        f"left out, as they give the label away: {some(list(made.leaking)) or 'none'}\n"
        f"left out, of too many values or as asked: {some(list(left)) or 'none'}"
    )


@app.command("synthetic-flows")
def synthetic_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the table, CSV.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the 1,215,890 rows of the published table.")] = 0.02,
    without: Annotated[list[str] | None, typer.Option(help="A label to leave out; can be said again.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the rows.")] = 0,
) -> None:
    """Write synthetic flows, in the columns of 5G-NIDD, to try the commands without data."""
    check_output(output)
    counts = {name: round(n * share) for name, n in PUBLISHED_COUNTS.items() if name not in (without or ())}
    write_synthetic(output, counts, seed)
    console.print(f"{output}: {sum(counts.values()):,} synthetic rows")
