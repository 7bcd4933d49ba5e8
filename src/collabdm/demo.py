"""The demonstration: handwritten digits, built in, at five skewed sites; a round in a minute on two cores.

The digits are 8 x 8; enlarged to 16 x 16, four of them fit in one stored image without loss, as pae stores
them. One image per class: the whole set is ten images.
"""

from collabdm.experiment import Experiment

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
