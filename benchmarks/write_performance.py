"""docs/performance.md, written from what `speed.py` and `memory.py` measured: never typed by hand.

python benchmarks/write_performance.py            write it
python benchmarks/write_performance.py --check    exit 1 if it differs
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "results" / "speed"
INTRODUCTION = """\
# How fast it is

Written by `python benchmarks/write_performance.py` from the files in `results/speed/`; each carries its command,
machine and versions.

Three loops take nearly all the time: a site's pass over the T networks (*statistics*), the refinement of
synthetic images at site and server (*matching*), and the networks that a set is judged by (*training*). The *twin*
(`benchmarks/twin.py`) is the same algorithm as a first program would have it: float32, not compiled, a
new network object for each step, one forward pass for each class, a DataLoader. Before anything is timed, both must
give the same means, images and outputs in float32. Then they run in turn; the figures are medians of wall seconds
(least .. most), the ratio is taken pair by pair. Shapes are CIFAR-10's: ten classes, 64 real images a class,
ten synthetic ones of four small images each, ConvNet of three blocks of 128 filters. *simulate* is a whole round with
its files and one scored network.
"""
WHY = """\
## What made it fast

The figures in this list and the next are single measurements of one loop on an otherwise idle machine (2 cores, AMX,
torch 2.13), made while it was written.

- **Few images at a time.** What one pass touches should stay in the processor's cache: 64 images forward and 32 with
  gradients take less than half the time per image of 256 at once. Groups of whole classes let a pass's memory be
  used again by the next.
- **Normalise and pool without writing between** (`collabdm.fused`): instance normalisation becomes one scale and shift
  per channel of each image, and a pooled pixel is computed from its four corners at once. On two cores with
  AMX 256 images forward fell from 72 to 20 .. 30 ms, with gradients towards the images from 218 to about 70.
- **bfloat16 where the processor multiplies it**; a class mean moves by less than 0.5 % of its norm, which a test
  holds. Sums are float32.
- **One compiled function for all seeds.** Networks are arguments, reseeded in place (2.4 ms for 320,010 weights), and
  passes have one shape. A job that is too short to repay compilation is not compiled, and a machine without a C++
  compiler goes on without, saying so once.
- **All classes in one step**, images resident as bytes and normalised as they are used, nothing of size T in
  memory but the result.

## What did not help

- 16 images a pass: the cost of starting each operation shows. 128 and more: out of the cache, twice the time.
- Compiling normalisation and augmentation of the pixels together with the network: 7.2 ms for 64 images against 6.9.
- Larger thresholds of the C library's allocator: within the noise once passes are small.
- Two sums instead of mean and variance for the normalisation: 6 % faster forward, not with gradients, less exact.
- Pooling by corners with gradients: its backward pass scatters; 127 ms per 256 images against 73.

## What it does not reach

The share of the matrix peak is taken against the best of several 4096 x 4096 products. On processors with AMX these run
at some 1,600 to 2,000 GFLOP/s on two cores; a small network cannot, because normalisation, pooling and the first
convolution (three channels: 27 products per output) walk memory. No GPU was at hand: the paths for one (larger
passes, smaller ones when memory is short) are tested on the CPU as far as they go; nothing is said of their speed.
Several networks are trained one after another; training them together is not built.
"""


def main() -> None:
    """Write, or check."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit(f"{PAGE.name} should be what the results say: run `python benchmarks/write_performance.py`")
    else:
        PAGE.write_text(text)


def page() -> str:
    """The whole page."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    speed = [table(result) for name, result in found.items() if not name.startswith("memory")]
    memory = [result for name, result in found.items() if name.startswith("memory")]
    return "\n".join([INTRODUCTION, *speed, *([peaks(memory)] if memory else []), WHY]).rstrip() + "\n"


def table(result: dict[str, Any]) -> str:
    """One machine and precision."""
    lines = [
        f"## {result['compute']['precision']} on {result['compute']['device']}\n",
        f"`{result['command']}`; {result['machine']}; {versions_of(result)}.\n",
        "| loop | n | ours, s | twin, s | twin / ours | first call, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, loop in result["loops"].items():
        cells = (span(loop[key], digits) for key, digits in (("ours", 2), ("twin", 2), ("ratio", 1)))
        lines.append(f"| {name} | {loop['n']} | {' | '.join(cells)} | {loop['first']:.1f} |")
    share, rate = 100 * result["statistics_share_of_peak"], result["statistics_gflops"]
    lines.append(
        f"\nStatistics: {rate:.0f} GFLOP/s of the convolutions, {share:.0f} % of the measured matrix peak of "
        f"{result['matrix_peak_gflops']:.0f} GFLOP/s.\n"
    )
    return "\n".join(lines)


def peaks(results: list[dict[str, Any]]) -> str:
    """Peak memory of a site."""
    lines = ["## Memory of a site\n", "| images | T | peak, MiB |", "|---:|---:|---:|"]
    for result in sorted(results, key=lambda r: (r["images"], r["steps"])):
        lines.append(f"| {result['images']:,} | {result['steps']} | {result['peak_bytes'] / 2**20:.0f} |")
    commands = ", ".join(f"`{command}`" for command in sorted({result["command"] for result in results}))
    return "\n".join([*lines, "", f"{commands}; {results[0]['machine']}; {versions_of(results[0])}. Each run once.\n"])


def versions_of(result: dict[str, Any]) -> str:
    """Versions as text."""
    return ", ".join(f"{name} {number}" for name, number in result["versions"].items())


def span(spread: dict[str, float], digits: int) -> str:
    """Median (least .. most)."""
    low, middle, high = (f"{spread[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} ({low} .. {high})"


if __name__ == "__main__":
    main()
