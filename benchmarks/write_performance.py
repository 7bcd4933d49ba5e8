"""Generate docs/performance.md from the measurements of `speed.py`, `memory.py` and `cost.py`.

python benchmarks/write_performance.py            write it, and the plot of the cost
python benchmarks/write_performance.py --check    exit with 1 if it is not up to date

Never edit the page by hand.
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
## On a busy machine

PyTorch's threads are those of GNU OpenMP. An idle one spins for milliseconds after every operation,
which takes time from the thread that it waits for if other processes need the cores. The command
line therefore sets `OMP_WAIT_POLICY=PASSIVE`, unless the environment sets it, and chooses as many
threads as cores are free (`matching.threads`); `--verbose` states the number and the reason.

`collabdm train` on a hundred images of 8 x 8 (30 epochs of the recipe `short`, ConvNet of width
128), wall-clock seconds including the start of Python, on two cores with about three other
processes that compute, one of which kept one core; each once:

| threads | idle threads | seconds |
|---:|---|---:|
| 2 | spin (GNU OpenMP's default) | 266 |
| 2 | spin briefly (`GOMP_SPINCOUNT=1000`) | 148 |
| 2 | sleep | 119 |
| 1, as chosen there | none | 24 |

## Which precision `auto` takes

bfloat16 on a GPU that supports it, on a CPU with AMX, and on a CPU of AMD with AVX512-BF16; float32
elsewhere. CPU seconds of one thread, ConvNet of width 128, compiled; on this machine with
`ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16`, so without AMX (statistics: two steps of 640 images, n = 3;
training: two epochs of 640 images, n = 2; mean). On an EPYC with AVX512-BF16 and no AMX, the same
loops took half the time in bfloat16 (n = 3): the ratios there were 4.2 and 2.0 against the authors'
statistics, 3.0 and 1.6 against their training.

| loop, Intel without AMX | float32 | bfloat16 |
|---|---:|---:|
| statistics | 1.8 | 2.2 |
| training | 5.6 | 7.0 |

## What made it fast

The figures in this list and the next are single measurements of one loop on an otherwise idle
machine (2 cores, AMX, torch 2.13), made during development.

- **Few images at a time.** The working set of one pass should stay in the processor's cache: 64
  images forward and 32 with gradients take less than half the time per image of 256 at once.
  Grouping whole classes lets the next pass reuse a pass's memory.
- **Normalise and pool without intermediate writes** (`matching.compiled_layers`): instance
  normalisation becomes one scale and shift per channel of each image, and a pooled pixel is
  computed directly from its four corners. On two cores with AMX, the time for 256 images fell from
  72 to 20 .. 30 ms forward, and from 218 to about 70 with gradients with respect to the images.
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


Result = dict[str, Any]  # of one file in results/speed


def main() -> None:
    """Write the page and its plot, or compare the page with the results."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit(f"{PAGE.name} is not up to date: run `python benchmarks/write_performance.py`")
        return

    PAGE.write_text(text)
    for path in RESULTS.glob("cost*.json"):
        plot(json.loads(path.read_text()), PAGE.parent / PLOT)


def page() -> str:
    """The whole page."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    speed = [table(result) for result in results if "loops" in result]
    memory = [result for result in results if "peak_bytes" in result]
    costs = [cost(result) for result in results if "axes" in result]

    return "\n".join([INTRODUCTION, *speed, peaks(memory), *costs, WHY]).rstrip() + "\n"


def table(result: Result) -> str:
    """The loops on one machine, at one precision."""
    lines = [
        f"## {result['compute']['precision']} on {result['compute']['device']}\n",
        f"{origin(result)}.\n",
        "| loop | n | ours, s | twin, s | twin / ours | first call, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, loop in result["loops"].items():
        seconds = f"{span(loop['ours'], 2)} | {span(loop['twin'], 2)} | {span(loop['ratio'], 1)}"
        lines.append(f"| {name} | {loop['n']} | {seconds} | {loop['first']:.1f} |")

    share, rate = 100 * result["statistics_share_of_peak"], result["statistics_gflops"]
    lines.append(
        f"\nStatistics: {rate:.0f} GFLOP/s of the convolutions, {share:.0f} % of the measured "
        f"matrix peak of {result['matrix_peak_gflops']:.0f} GFLOP/s.\n"
    )
    return "\n".join(lines)


def peaks(results: list[Result]) -> str:
    """The peak memory of a site."""
    lines = ["## Memory of a site\n", "| images | T | peak, MiB |", "|---:|---:|---:|"]
    for result in sorted(results, key=lambda r: (r["images"], r["steps"])):
        mebibytes = f"{result['peak_bytes'] / 2**20:.0f}"
        lines.append(f"| {result['images']:,} | {result['steps']} | {mebibytes} |")

    commands = sorted({f"`{result['command']}`" for result in results})
    where = f"{results[0]['machine']}; {versions_of(results[0])}"
    return "\n".join([*lines, "", f"{', '.join(commands)}; {where}. Each run once.\n"])


def cost(result: Result) -> str:
    """The cost of a round against each of its settings."""
    base = ", ".join(f"{name} {value}" for name, value in result["base"].items())
    lines = [
        "## Cost against T, batch, side, ipc and sites\n",
        f"One setting is varied at a time, from {base}\n(ConvNet of width 32, pae 2): seconds, "
        "medians of n. The",
        "straight line is fitted to the relative errors; for the side, against its square.\n",
        "| setting | loop | values | seconds | fixed part, s | largest deviation from the line |",
        "|---|---|---|---|---:|---:|",
    ]
    for name, axis in result["axes"].items():
        values = ", ".join(map(str, axis["values"]))
        seconds = ", ".join(f"{y:.2g}" for y in axis["median"])
        fit = f"{axis['start']:.2f} | {100 * axis['off_line']:.0f} %"
        lines.append(f"| {name} | {axis['loop']} | {values} | {seconds} | {fit} |")

    return "\n".join([*lines, f"\n{origin(result)}.\n", COST, f"![{PICTURED}]({PLOT})\n"])


def plot(result: Result, path: Path) -> None:
    """Plot the seconds against each setting, with the fitted line."""
    import matplotlib.pyplot as plt  # slow to import, and not needed for --check

    axes = result["axes"]
    figure, places = plt.subplots(1, len(axes), figsize=(14, 3), layout="constrained")

    for place, (name, axis) in zip(places, axes.items(), strict=True):
        x = [value**2 if name == "side" else value for value in axis["values"]]
        low = [y - least for y, least in zip(axis["median"], axis["least"], strict=True)]
        high = [most - y for y, most in zip(axis["median"], axis["most"], strict=True)]
        place.errorbar(x, axis["median"], [low, high], fmt="o", capsize=3, color="#0072b2")

        ends = [0, max(x)]
        line = [axis["start"] + axis["slope"] * end for end in ends]
        place.plot(ends, line, color="#d55e00", linewidth=1)

        label = "side x side" if name == "side" else name
        place.set(xlabel=label, title=axis["loop"], ylim=(0, None))
        place.grid(alpha=0.3)

    places[0].set_ylabel("seconds")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def origin(result: Result) -> str:
    """The command, machine and versions of a measurement."""
    return f"`{result['command']}`; {result['machine']}; {versions_of(result)}"


def versions_of(result: Result) -> str:
    """Versions as text."""
    return ", ".join(f"{name} {number}" for name, number in result["versions"].items())


def span(spread: dict[str, float], digits: int) -> str:
    """Median (minimum .. maximum)."""
    low, middle, high = (f"{spread[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} ({low} .. {high})"


if __name__ == "__main__":
    main()
