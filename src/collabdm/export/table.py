"""Write a distilled set of rows as tables: CSV and parquet, with the columns of its schema.

    set.csv, set.parquet    the columns that the schema uses, then the label

Numbers are in their own units, and categories are texts. A missing value is an empty cell in the
CSV file and null in the parquet file.
"""

import csv
import io
from pathlib import Path
from typing import Any

from collabdm.data.flows.rows import decode_set
from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import DataError
from collabdm.images import ImageSet

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a text that begins so


def schema_of_rows(plan: Plan) -> FlowSchema:
    """Return the schema of a plan for rows. Raises DataError if its set has images."""
    if plan.flows is None or not plan.flows.as_rows:
        raise DataError(
            "the set should contain rows of a table to be written as one; found images: "
            "export them as hub, folder or npz"
        )
    return plan.flows


def write_tables(distilled: DistilledSet, output: Path) -> None:
    """Write set.csv and set.parquet to a folder. Raises DataError if the set has images."""
    schema = schema_of_rows(distilled.plan)
    columns = decode_set(schema, distilled.images)

    atomic_write(output / "set.csv", csv_text(columns).encode())
    _write_parquet(columns, output / "set.parquet")


def write_csv(schema: FlowSchema, data: ImageSet, path: Path) -> None:
    """Write rows as a CSV file."""
    atomic_write(path, csv_text(decode_set(schema, data)).encode())


def csv_text(columns: dict[str, list[Any]]) -> str:
    """Write columns as CSV, with an empty cell for a missing value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_inert, columns))
    writer.writerows(zip(*(map(_inert, values) for values in columns.values()), strict=True))
    return text.getvalue()


def _inert(value: Any) -> Any:
    """Put a quotation mark before a text that a spreadsheet would compute."""
    is_formula = isinstance(value, str) and value.startswith(FORMULA) and value != "-"
    return f"'{value}" if is_formula else value


def _write_parquet(columns: dict[str, list[Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    atomic_write_with(path, lambda file: pq.write_table(table, file))
