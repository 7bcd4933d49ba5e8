"""Demonstrations: two rounds on built-in data, each of which takes a minute on two cores.

`DEMO` uses handwritten digits at five skewed sites. The 8 x 8 digits are enlarged to 16 x 16. With
pae, one stored image contains four reduced images; here nothing is lost, since reducing the digits
restores their original 8 x 8 pixels. With one image per class, the whole distilled set is ten
images.

`traffic` detects attacks at two base stations, which see different attacks. The traffic is
synthetic.
"""

from pathlib import Path

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.schemas import with_changes
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS, write_synthetic
from collabdm.lab.experiment import Experiment

ALL_ROWS = ("localdm", "random", "sites", "all")

DEMO = Experiment(
    data="digits",
    side=16,
    method="collabdm-pae",
    sites=5,
    beta=0.1,
    plan={
        "ipc": 1,
        "steps": 60,
        "batch": 64,
        "network": {"width": 32, "depth": 2},
    },
    trials=2,
    recipe="short",
    epochs=100,
    compare=ALL_ROWS,
)

TRAFFIC_SHARE = 0.004  # of the rows of the published table
TRAFFIC_SCHEMA = {"flows": 5, "side": 16, "layout": "rows"}

#: the stations, and the attacks that each does not see
STATIONS = {
    "synthetic-north": ("SYNFlood", "HTTPFlood"),
    "synthetic-south": ("UDPScan", "SlowrateDoS"),
}


def traffic(folder: Path) -> Experiment:
    """Define a round that detects attacks, on synthetic tables of two base stations.

    The tables are written to `folder`, unless they exist.
    """
    tables = []
    for seed, (station, unseen) in enumerate(STATIONS.items()):
        table = folder / f"{station}.csv"
        tables.append(str(table))
        if not table.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_synthetic(table, _row_counts(unseen), seed)

    return Experiment(
        data=",".join(tables),
        flows=with_changes(FIVE_G_NIDD, TRAFFIC_SCHEMA),
        method="collabdm",
        sites=len(STATIONS),
        plan={
            "ipc": 1,
            "steps": 20,
            "batch": 64,
            "network": {"width": 16, "depth": 2},
            "local": {"start": "real", "steps": 20, "batch": 64},
            "refinement": {"passes": 4},
        },
        trials=3,
        recipe="short",
        compare=ALL_ROWS,
    )


def _row_counts(unseen: tuple[str, ...]) -> dict[str, int]:
    """The number of rows of each label at a station."""
    return {
        label: round(count * TRAFFIC_SHARE)
        for label, count in PUBLISHED_COUNTS.items()
        if label not in unseen
    }
