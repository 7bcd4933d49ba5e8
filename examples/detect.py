"""Classify the flows of a CSV table with a detector file; needs no collabdm.

    collabdm train SET --onnx -o model.safetensors
    python detect.py model.onnx flows.csv > verdicts.csv

The detector takes numbers in their units, NaN for a missing one, and categories as positions in
lists: -1 for a text that is not listed, -2 for a missing one. Its metadata names the columns.
"""

import csv
import json
import sys
from itertools import islice

import numpy as np
import onnxruntime

ROWS = 4096  # in a batch


def number(text, inputs):
    """Read a number; NaN if there is none, or infinity where that counts as missing."""
    unset = inputs["missing_numbers"]
    if "_" in text or text in inputs["missing"] or text.lower() in map(str.lower, unset or ()):
        return np.nan
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return np.nan if unset is not None and np.isinf(value) else value


def main(detector, table):
    """Write a line of CSV for each flow to standard output."""
    session = onnxruntime.InferenceSession(detector, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes, inputs = json.loads(metadata["classes"]), json.loads(metadata["inputs"])
    absent = dict.fromkeys(inputs["missing"], -2)
    lists = {n: {v: k for k, v in enumerate(vs)} for n, vs in inputs["categories"].items()}

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["row", "class", "confidence"])
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader, first = csv.reader(file), 0
        names = [name.strip() for name in next(reader)]
        while lines := list(islice(reader, ROWS)):
            whole = (line for line in lines if len(line) == len(names))
            rows = [dict(zip(names, map(str.strip, line), strict=True)) for line in whole]
            numbers = [[number(row[n], inputs) for n in inputs["numbers"]] for row in rows]
            positions = [[(lists[n] | absent).get(row[n], -1) for n in lists] for row in rows]
            feed = {"numbers": np.array(numbers, float), "categories": np.array(positions, int)}
            for p in session.run(None, feed)[0]:
                writer.writerow([first, classes[p.argmax()], f"{p.max():.4f}"])
                first += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
