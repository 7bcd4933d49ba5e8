"""Tables of flows: `schema` says what sites agree on, `classify` uses a model, `synthetic-flows` writes a table."""

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from collabdm.cli.console import Bars, table
from collabdm.cli.options import Quiet, Rows, Threads, app, check_output, compute_of, console, notes
from collabdm.data.flows.built_in import SCHEMAS
from collabdm.data.flows.chunks import some
from collabdm.data.flows.draft import DRAFT_SIDE, Draft, draft, schema_of, with_changes
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS, write_synthetic
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import PlanError
from collabdm.export.flow_classifier import Verdicts, classify, rows_of, schema_for
from collabdm.planning.settings import given
from collabdm.rounds.exchange import parse_rows
from collabdm.scoring.trained_model import read_model


@app.command("schema")
def schema_command(
    sample: Annotated[str, typer.Argument(metavar="SAMPLE", help=f"A public sample table, or {', '.join(SCHEMAS)}.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the schema.")],
    label: Annotated[str | None, typer.Option(help="The column of the label; if not said, a usual name.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="A column to leave out; can be said again.")] = None,
    keep_leaking: Annotated[
        bool, typer.Option("--keep-leaking", help="Keep the columns that give the label away, as the paper does.")
    ] = False,
    flows: Annotated[int | None, typer.Option(help="Rows of an image; a draft takes as many as fit.")] = None,
    side: Annotated[int | None, typer.Option(help="Height and width of an image.", show_default="32")] = None,
    layout: Annotated[str | None, typer.Option(help="packed, or rows: every flow begins a line.")] = None,
    grouping: Annotated[str | None, typer.Option(help="Images of rows of one class, or of a stream.")] = None,
    split: Annotated[str | None, typer.Option(help="The test: blocks of time, random images, or none.")] = None,
    block: Annotated[int | None, typer.Option(help="Images of a block of time.")] = None,
) -> None:
    """Draft a schema of flows from a sample, for a person to read and mend; or write a built-in one."""
    check_output(output, Path(sample))
    known = SCHEMAS.get(sample)
    drafted = Draft(known, ()) if known else draft(Path(sample), label, side or DRAFT_SIDE, leave_out or ())
    wanted = given(flows=flows, side=side, layout=layout, grouping=grouping, split=split, block=block)
    made = with_changes(drafted.schema, wanted, keep_leaking)
    atomic_write(output, (made.model_dump_json(indent=2) + "\n").encode())
    console.print(
        f"{output}: {len(made.features)} features, {made.flows} rows an image of side {made.side}\n"
        f"classes: {', '.join(made.classes)}\n"
        f"give the label away, and are {'kept' if keep_leaking else 'left out'}: {some(list(made.leaking)) or 'none'}\n"
        f"left out, of too many values or as asked: {some(list(drafted.left_out)) or 'none'}",
        soft_wrap=True,
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


@app.command("classify")
def classify_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model.")],
    data: Annotated[Path, typer.Argument(metavar="FLOWS", help="A table of flows, labelled or not.")],
    flows: Annotated[
        str | None, typer.Option(help="The schema: a name, its file or a plan; if not said, the model's.")
    ] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Only what the schema holds out for the test.")] = False,
    grouping: Annotated[str, typer.Option(help="Windows of rows as they come (stream), or of one class.")] = "stream",
    rows: Rows = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A line for each window, CSV.")] = None,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Say the class of every window of a table of flows; where labels are, how often that is right."""
    if grouping not in ("stream", "class"):
        raise PlanError(f"`--grouping` should be stream or class; found {grouping!r}")
    if output is not None:
        check_output(output, model, data)
    compute_of("cpu", "float32", threads)
    trained = read_model(model)
    schema = schema_for(trained, None if flows is None else schema_of(flows))
    schema = schema.model_copy(update={"grouping": grouping})
    start = time.perf_counter()
    with Bars(quiet) as bars:
        read, tally = read_flows(data, schema, Reading(parse_rows(rows), grouping == "class", bars))
    found = windows(read, schema, "test" if held_out else "all")
    verdicts = classify(trained, found)
    seconds = time.perf_counter() - start
    for line in tally.lines():
        notes.print(line)
    if output is not None:
        atomic_write(output, verdicts.csv(schema.flows).encode())
    print_verdicts(data, verdicts, found.mixed)
    speed = f"{len(read) / seconds:,.0f} a second on {torch.get_num_threads()} thread(s)"
    console.print(f"{len(read):,} flows in {seconds:.2f} s, {speed}")


def print_verdicts(data: Path, verdicts: Verdicts, mixed: int) -> None:
    """How many windows of each class, and where labels are, how often that is right."""
    counts = torch.bincount(verdicts.predicted, minlength=len(verdicts.classes))
    said = [(name, f"{int(n):,}") for name, n in zip(verdicts.classes, counts, strict=True)]
    console.print(table(f"{data}, {len(verdicts.predicted):,} windows", ("class", "windows"), said))
    console.print(f"confidence: {float(verdicts.confidence.mean()):.3f} on average")
    confusion = verdicts.confusion()
    if confusion is not None:
        columns = ("true class", "windows", "precision %", "recall %", *(f"as {name}" for name in verdicts.classes))
        console.print(table("Against the labels", columns, rows_of(confusion, verdicts.classes)))
        console.print(
            f"accuracy {100 * confusion.accuracy:.2f} %, macro F1 {100 * confusion.macro_f1:.2f} %; "
            f"windows with rows of several classes: {mixed:,}"
        )
