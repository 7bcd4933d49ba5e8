"""A small round on Fashion-MNIST: private data for named sites, the plan, the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collabdm.data.sources import limit, load
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.images import ImageSet
from collabdm.planning.make import plan_for
from collabdm.seeds import Purpose, Stream

COMPUTE = {"device": "cpu", "precision": "float32", "threads": 1}

Held = Mapping[str, Sequence[int]]  # the classes of each site


def a_plan(data: ImageSet, sites: Sequence[str], **settings: Any) -> Plan:
    small: dict[str, Any] = {
        "ipc": 2,
        "steps": 2,
        "network": {"width": 8, "depth": 2},
        "local": {"steps": 2, "batch": 8},
        "collection": {"quorum": len(sites), "deadline": 300},
    }
    return plan_for(data, sites=len(sites), site_names=tuple(sites), **small | settings)


def private_data(root: Path, held: Held) -> ImageSet:
    """Write a few images for each site, SITE.npz, and return all of them."""
    images = limit(load("fashion_mnist"), 8 * len(held), Stream.of(0, Purpose.DATA))
    for k, (site, classes) in enumerate(held.items()):
        mine = np.isin(images.labels.numpy(), classes) & (np.arange(len(images)) % len(held) == k)
        pixels, labels = images.images.numpy()[mine], images.labels.numpy()[mine]
        np.savez(root / f"{site}.npz", images=pixels, labels=labels, classes=images.classes)
    return images


def write_given(plan: Plan, root: Path) -> Path:
    """Write the plan of a run; returns its path."""
    path = root / f"plan-{plan.digest[:8]}.json"
    write_plan(plan, path)
    return path


def sent(folder: Path) -> dict[str, bytes]:
    """The bytes of each site's contribution in the folder of a round."""
    return {
        path.stem: path.read_bytes() for path in (folder / "contributions").glob("*.safetensors")
    }
