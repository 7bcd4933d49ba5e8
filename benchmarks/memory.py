"""Peak memory of a site's whole contribution, in a process of its own.

python benchmarks/memory.py --steps 400 -o results/speed/memory-400.json
"""

import argparse
import json
import resource
import tempfile
from pathlib import Path

import torch
from speed import machine

from collabdm.data.sources import load
from collabdm.documents.contribution_file import write_contribution
from collabdm.matching.compute import choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute
from collabdm.planning.make import plan_for
from collabdm.version import versions


def main() -> None:
    """Contribute, and write the peak memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    data = load(options.data).subset(torch.arange(options.images))
    plan = plan_for(data, steps=options.steps, batch=16, local={"steps": 5})
    with tempfile.TemporaryDirectory() as folder:
        contribution = contribute(plan, data, "site-1", RunContext(choose_compute()))
        write_contribution(contribution, Path(folder) / "site-1.safetensors")

    results = {
        "command": "python benchmarks/memory.py --steps T",
        "machine": machine(),
        "versions": versions(),
        "images": options.images,
        "steps": options.steps,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
