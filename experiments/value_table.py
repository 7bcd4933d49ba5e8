"""The README's first table: networks trained on the distilled set, on each site's own data, and others.

Its source is results/value/NAME-SEED.json, the results of

    collabdm simulate --data NAME --sites 5 --beta 0.1 --ipc 10 --seed SEED
        --network ConvNet:width=64 --recipe short --epochs 100 --trials 1
        --compare random,sites,all -o FOLDER

for the names in DATA and seeds 0, 1 and 2.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from collabdm.lab.results import SimulationResults, read_results

MARKS = ("<!-- value -->", "<!-- end of value -->")
DATA = {"cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
EVERYTHING = "all the data"

Found = dict[str, list[float]]  # the accuracy of each row in percent, over seeds


def value_section(folder: Path) -> str:
    """The table with its caption; empty if no result is there."""
    rounds = [read_results(path) for path in sorted(folder.glob("*.json"))]
    by_data = {
        data: [one for one in rounds if isinstance(one, SimulationResults) and one.data == data]
        for data in DATA
    }
    found = {data: accuracies(results) for data, results in by_data.items() if results}
    return "\n".join(_lines(found, by_data)) + "\n" if found else ""


def accuracies(rounds: Sequence[SimulationResults]) -> Found:
    """The accuracies of every row of the table on one data set, over seeds."""
    found: Found = {}
    for results in rounds:
        scores = {score.what: 100 * score.mean for score in (r.score for r in results.scores)}
        alone = [value for name, value in scores.items() if name.endswith(" alone")]
        random = max(value for name, value in scores.items() if name.startswith("random"))

        row = {
            "distilled set": scores[results.experiment.method],
            "best site alone": max(alone),
            "mean of the sites alone": statistics.fmean(alone),
            "random": random,
        }
        if EVERYTHING in scores:  # the last score of a simulation, and the slowest
            row["pooled"] = scores[EVERYTHING]
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return found


def _lines(found: dict[str, Found], rounds: dict[str, list[SimulationResults]]) -> Iterator[str]:
    names = [DATA[data] for data in found]
    yield f"| networks trained on | {', % | '.join(names)}, % | what left each site |"
    yield f"|---|{'---:|' * len(names)}---|"

    everyone = [one for data in found for one in rounds[data]]
    most = max(record.largest_upload or 0 for one in everyone for record in one.sets.values())
    sent = {
        "distilled set": f"one file of at most {most / 1e6:.1f} MB, without any real image",
        "best site alone": "nothing",
        "mean of the sites alone": "nothing",
        "random": "real images",
        "pooled": "everything",
    }
    labels = {
        "distilled set": f"**the distilled set, {_images(everyone)} images**",
        "best site alone": "the best site's data alone",
        "mean of the sites alone": "one site's data alone, mean of the sites",
        "random": "as many random real images, stored alike",
        "pooled": f"all the data, pooled ({_training_images(everyone)} images)",
    }
    for row, what in sent.items():
        values = [found[data].get(row, []) for data in found]
        if not any(values):
            continue
        cells = [_spread(one, bold=row == "distilled set") for one in values]
        yield f"| {labels[row]} | {' | '.join(cells)} | {what} |"


def _images(rounds: Sequence[SimulationResults]) -> str:
    """The number of images in a set; a fact that is the same in all rounds of the table."""
    (images,) = {one.sets[one.experiment.method].images for one in rounds}
    return f"{images}"


def _training_images(rounds: Sequence[SimulationResults]) -> str:
    """The numbers of training images at all sites together."""
    totals = {
        one.data: sum(map(sum, one.sets[one.experiment.method].sites.values())) for one in rounds
    }
    return " and ".join(f"{total:,}" for total in totals.values())


def _spread(values: Sequence[float], bold: bool) -> str:
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    text = f"{statistics.fmean(values):.1f}{deviation} ({len(values)})"
    return f"**{text}**" if bold else text
