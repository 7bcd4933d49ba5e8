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

Written by `python benchmarks/write_performance.py` from the files in `results/speed/`; each file
records its command, machine and versions.

Three loops take nearly all the time: a site's pass over the T networks (*statistics*), the
refinement of synthetic images at sites and server (*matching*), and the training of the networks
that evaluate a set (*training*). The *twin* (`benchmarks/twin.py`) is a straightforward
implementation of the same algorithm: float32, not compiled, a new network object for each step, one
forward pass for each class, a DataLoader. Before anything is timed, both must produce the same
means, images and outputs in float32. Then they run alternately. The figures are medians of
wall-clock seconds (minimum .. maximum); the ratio is computed pair by pair. Shapes are those of
CIFAR-10: ten classes, 64 real images per class, ten synthetic images of four small images each,
ConvNet of three blocks of 128 filters. *simulate* is a complete round with its files and one scored
network.
"""
PLOT, PICTURED = (
    "pictures/cost.png",
    "Seconds against each setting; bars from minimum to maximum, and a straight line",
)
COST = """\
The lines are straight. Five images of a class (20 small ones) do not fill a pass, so the smallest
ipc costs slightly more than its share. Merging the sites' contributions takes milliseconds, where
the measurement itself is imprecise.
"""
WHY = """\
## What made it fast

The figures in this list and the next are single measurements of one loop on an otherwise idle
machine (2 cores, AMX, torch 2.13), made during development.

- **Few images at a time.** The working set of one pass should stay in the processor's cache: 64
  images forward and 32 with gradients take less than half the time per image of 256 at once.
  Grouping whole classes lets the next pass reuse a pass's memory.
- **Normalise and pool without intermediate writes** (`collabdm.fused`): instance normalisation
  becomes one scale and shift per channel of each image, and a pooled pixel is computed directly
  from its four corners. On two cores with AMX, the time for 256 images fell from 72 to 20 .. 30 ms
  forward, and from 218 to about 70 with gradients with respect to the images.
- **bfloat16 where the processor multiplies it natively**; a class mean changes by less than 0.5 %
  of its norm, which a test verifies. Sums are float32.
- **One compiled function for all seeds.** Networks are arguments, reseeded in place (2.4 ms for
  320,010 weights), and all passes have the same shape. A job too short to repay compilation is not
  compiled. A machine without a C++ compiler runs uncompiled and reports this once.
- **Small images in larger passes** where launching an operation costs more than the data it
  processes: training a network of width 32 on 16 x 16 images fell from 111 to 70 us per image.
- **All classes in one step**, images in memory as bytes and normalised on use, nothing of size T in
  memory except the result.

## What did not help

- 16 images per pass: the cost of launching each operation dominates. 128 and more: out of the
  cache, twice the time.
- Compiling normalisation and augmentation of the pixels together with the network: 7.2 ms for 64
  images against 6.9.
- Larger thresholds of the C library's allocator: within the noise once passes are small.
- Two sums instead of mean and variance for the normalisation: 6 % faster forward, no faster with
  gradients, less accurate.
- Pooling by corners with gradients: its backward pass is a scatter; 127 ms per 256 images
  against 73.
- Augmenting two, four or ten passes at once before the network: 267 .. 318 ms for three steps
  against 292.
- Uncompiled networks in channels-last order: pooling alone is about six times faster, but the
  normalisation then copies; a training step took 10.3 ms against 7.8 (width 32, 128 images of 16 x
  16, bfloat16), 48.8 against 40.6 (width 128, 32 of 32 x 32).
- Training R networks together on a CPU (one batched network by `torch.vmap`, or grouped
  convolutions): ms for each network and step, two cores, float32, not compiled; only tiny batches
  of tiny images gain.

  | network, batch | R | one after another | vmap | grouped |
  |---|---:|---:|---:|---:|
  | width 32, 10 of 1 x 16 x 16 | 3 | 1.66 | 1.39 | 0.99 |
  | width 32, 40 of 1 x 16 x 16 | 3 | 3.30 | 4.30 | 3.02 |
  | width 32, 40 of 1 x 16 x 16 | 8 | 3.30 | 5.40 | 4.25 |
  | width 32, 100 of 3 x 32 x 32 | 3 | 43.0 | 83.0 | 49.4 |
  | width 128, 64 of 3 x 32 x 32 | 3 | 139 | 228 | 156 |

## Where it falls short

The target for statistics was 60 % of the matrix peak; the table shows the share achieved. The
convolutions are not the bottleneck. The peak is the best of several 4096 x 4096 products, which on
processors with AMX varies between 1,600 and 2,400 GFLOP/s from run to run. In a profile, one pass
of 64 images took 8.4 ms:

- the three convolutions 3.1 (2.7 when run alone: 100 % of the peak on average; the second 158 %,
  because its operands stay in the cache; the first, with three channels, 21 %);
- normalisation, activation and pooling 2.7, which read the first convolution's 17 MB twice;
- normalising and augmenting the pixels 1.7;
- reseeding the network, class sums and launching operations the rest.

To reach 60 %, everything except the convolutions would have to shrink to a third. The lists above
record the attempts: fusing (the largest gain), other pass sizes, memory orders, the allocator,
compiling or batching the augmentation.

No GPU was available: the GPU code paths (larger passes, smaller ones when memory is short, eight
networks trained together) are tested on the CPU as far as possible; no claim is made about their
speed.
"""


def main() -> None:
    """Write, or check."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit(f"{PAGE.name} should be what the results say: run `python benchmarks/write_performance.py`")
    else:
        PAGE.write_text(text)
        for path in RESULTS.glob("cost*.json"):
            plot(json.loads(path.read_text()), PAGE.parent / PLOT)


def page() -> str:
    """The whole page."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    speed = [table(result) for result in found.values() if "loops" in result]
    memory = [result for result in found.values() if "peak_bytes" in result]
    costs = [cost(result) for result in found.values() if "axes" in result]
    return "\n".join([INTRODUCTION, *speed, peaks(memory), *costs, WHY]).rstrip() + "\n"


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


def cost(result: dict[str, Any]) -> str:
    """What a round costs against each of its settings."""
    base = ", ".join(f"{name} {value}" for name, value in result["base"].items())
    lines = [
        "## Cost against T, batch, side, ipc and sites\n",
        f"One setting is varied at a time, from {base}\n(ConvNet of width 32, pae 2): seconds, medians of n. The",
        "straight line is fitted to the relative errors; for the side, against its square.\n",
        "| setting | loop | values | seconds | fixed part, s | largest deviation from the line |",
        "|---|---|---|---|---:|---:|",
    ]
    for name, axis in result["axes"].items():
        values, seconds = ", ".join(map(str, axis["values"])), ", ".join(f"{y:.2g}" for y in axis["median"])
        lines.append(
            f"| {name} | {axis['loop']} | {values} | {seconds} | {axis['start']:.2f} | {100 * axis['off_line']:.0f} % |"
        )
    lines += [
        f"\n`{result['command']}`; {result['machine']}; {versions_of(result)}.\n",
        COST,
        f"![{PICTURED}]({PLOT})\n",
    ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds against each setting, with the straight line."""
    import matplotlib.pyplot as plt  # slow to import, and needed here only

    figure, places = plt.subplots(1, len(result["axes"]), figsize=(14, 3), layout="constrained")
    for place, (name, axis) in zip(places, result["axes"].items(), strict=True):
        x = [value**2 if name == "side" else value for value in axis["values"]]
        low = [y - least for y, least in zip(axis["median"], axis["least"], strict=True)]
        high = [most - y for y, most in zip(axis["median"], axis["most"], strict=True)]
        place.errorbar(x, axis["median"], [low, high], fmt="o", capsize=3, color="#0072b2")
        ends = [0, max(x)]
        place.plot(ends, [axis["start"] + axis["slope"] * end for end in ends], color="#d55e00", linewidth=1)
        place.set(xlabel="side x side" if name == "side" else name, title=axis["loop"], ylim=(0, None))
        place.grid(alpha=0.3)
    places[0].set_ylabel("seconds")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def versions_of(result: dict[str, Any]) -> str:
    """Versions as text."""
    return ", ".join(f"{name} {number}" for name, number in result["versions"].items())


def span(spread: dict[str, float], digits: int) -> str:
    """Median (least .. most)."""
    low, middle, high = (f"{spread[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} ({low} .. {high})"


if __name__ == "__main__":
    main()
