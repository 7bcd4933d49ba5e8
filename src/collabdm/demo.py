"""The demonstration: handwritten digits, built in, at five skewed sites; a round in a minute on two cores."""

from collabdm.experiment import Experiment

DEMO = Experiment(
    data="digits",
    method="collabdm-pae",
    sites=5,
    beta=0.1,
    plan={
        "ipc": 5,
        "steps": 100,
        "batch": 64,
        "network": {"width": 64, "depth": 1},
        "local": {"steps": 100, "batch": 64},
        "refinement": {"passes": 4},
    },
    trials=3,
    recipe="short",
    compare=("localdm-pae", "random", "sites", "all"),
)
