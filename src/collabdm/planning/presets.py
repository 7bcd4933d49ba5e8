"""Presets: named collections of settings, which apply unless the user sets a field.

`best` has the best settings that were measured for sites that show no image of theirs: they send
statistics and averages of similar images (docs/log.md). `real` lets local images start from real
ones, for data that may be shown: the server then needs fewer passes. `paper` has the settings of
the paper (docs/fidelity.md lists the differences). `fedd3`, `dosfl` and `dense` each select a
method for comparison, with the settings that its authors published (docs/methods.md). `none` sets
nothing: the defaults of a Plan apply.
"""

from collabdm.errors import PlanError, did_you_mean
from collabdm.planning.settings import Settings

PRESETS: dict[str, Settings] = {
    "best": {
        # `make.with_rates` sets learning rates by image size and schedule
        "refinement": {"passes": 16, "matching": {"schedule": "cosine"}},
    },
    "real": {
        "local": {"start": "real"},
        "refinement": {"passes": 4},
    },
    "paper": {
        "steps": 200,
        "batch": 512,
        "merging": "uniform",
        "images": "float32",
        "local": {"start": "real", "steps": 1000},
        "refinement": {"passes": 1, "matching": {"learning_rate": 10.0, "momentum": 0.5}},
    },
    "fedd3": {
        "method": "fedd3",
        "ipc": 50,
        "options": {"iterations": 3000, "learning_rate": 0.004, "batch": 10, "stop": 0.999},
    },
    "dosfl": {
        "method": "dosfl",
        "ipc": 50,
        "options": {
            "images": 10,
            "passes": 20,
            "window": 60,
            "iterations": 3000,
            "learning_rate": 1e-3,
            "clip": 2.0,
        },
    },
    "dense": {
        "method": "dense",
        "options": {
            "network": {"name": "ConvNet", "norm": "none", "pooling": "max"},
            "local": {"epochs": 200, "batch": 128, "learning_rate": 0.01, "momentum": 0.9},
            "epochs": 200,
            "batch": 256,
            "learning_rate": 0.005,
            "momentum": 0.9,
            "temperature": 20.0,
            "generator": {
                "noise": 256,
                "width": 128,
                "batch": 256,
                "steps": 30,
                "learning_rate": 1e-3,
                "normalisation": 1.0,
                "adversarial": 1.0,
            },
        },
    },
    "none": {},
}


def preset_settings(name: str) -> Settings:
    """Return the settings of a preset. Raises PlanError if the name is unknown."""
    if name not in PRESETS:
        nearest = did_you_mean(name, PRESETS)
        raise PlanError(f"`preset` should be one of {', '.join(PRESETS)}; found {name!r}{nearest}")
    return PRESETS[name]
