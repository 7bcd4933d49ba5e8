"""The demonstrations: a round in a minute on two cores, with data that is built in.

`DEMO`: handwritten digits at five skewed sites. The digits are 8 x 8; enlarged to 16 x 16, four of them fit in
one stored image without loss, as pae stores them. One image per class: the whole set is ten images.

`traffic`: attack detection at two base stations, each of which sees other attacks. The traffic is synthetic.
"""

from pathlib import Path

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.schemas import with_changes
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS, write_synthetic
from collabdm.lab.experiment import Experiment

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
        "local": {"steps": 60, "batch": 64, "matching": {"learning_rate": 0.2}},
        "refinement": {"passes": 4, "matching": {"learning_rate": 1.0}},  # small images: docs/log.md, entry 2
    },
    trials=2,
    recipe="short",
    epochs=100,
    compare=("localdm", "random", "sites", "all"),
)


TRAFFIC_SHARE = 0.004  # of the rows of the published table


TRAFFIC_SCHEMA = {"flows": 5, "side": 16, "layout": "rows"}


STATIONS = {"synthetic-north": ("SYNFlood", "HTTPFlood"), "synthetic-south": ("UDPScan", "SlowrateDoS")}  # unseen there


def traffic(folder: Path) -> Experiment:
    """Attack detection: the tables of two base stations, synthetic flows, are written to `folder` first."""
    tables = []
    for seed, (name, unseen) in enumerate(STATIONS.items()):
        tables.append(folder / f"{name}.csv")
        counts = {label: round(n * TRAFFIC_SHARE) for label, n in PUBLISHED_COUNTS.items() if label not in unseen}
        if not tables[-1].exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_synthetic(tables[-1], counts, seed)
    return Experiment(
        data=",".join(map(str, tables)),
        flows=with_changes(FIVE_G_NIDD, TRAFFIC_SCHEMA),
        method="collabdm",
        sites=len(STATIONS),
        plan={
            "ipc": 1,
            "steps": 20,
            "batch": 64,
            "network": {"width": 16, "depth": 2},
            "local": {"steps": 20, "batch": 64},
            "refinement": {"passes": 4},
        },
        trials=3,
        recipe="short",
        compare=("localdm", "random", "sites", "all"),
    )
