"""A round between real processes, over TLS with node keys, on published images: the bytes of the file route."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'collabdm[flower]'")

from collabdm.files import write_plan
from collabdm.flower.collecting import contribution_path
from collabdm.flower.connection import check_key, check_server
from collabdm.flower.server import set_path
from collabdm.images import ImageSet
from collabdm.planning import plan_for
from collabdm.protocol import Plan
from collabdm.seeds import Purpose, Stream
from collabdm.sources import limit, load
from command import done
from deployed import Deployment, deployment, wait_for

HELD = {"east": (0, 1, 2, 3, 4), "north": (3, 4, 5, 6, 7), "west": (7, 8, 9, 0)}
COMPUTE = {"device": "cpu", "precision": "float32", "threads": 1}


def a_plan(data: ImageSet) -> Plan:
    return plan_for(
        data,
        sites=3,
        site_names=tuple(HELD),
        ipc=2,
        steps=2,
        network={"width": 8, "depth": 2},
        local={"steps": 2, "batch": 8},
        collection={"quorum": 3, "deadline": 300},
    )


def private_data(root: Path) -> Plan:
    """A few published images for each site, and a plan for them."""
    images = limit(load("fashion_mnist"), 24, Stream.of(0, Purpose.DATA))
    for k, (site, classes) in enumerate(HELD.items()):
        mine = np.isin(images.labels.numpy(), classes) & (np.arange(len(images)) % 3 == k)
        pixels, labels = images.images.numpy()[mine], images.labels.numpy()[mine]
        np.savez(root / f"{site}.npz", images=pixels, labels=labels, classes=images.classes)
    plan = a_plan(images)
    write_plan(plan, root / "plan.json")
    return plan


def by_file(root: Path) -> Path:
    """The same round by the commands."""
    same = ("--device", "cpu", "--precision", "float32", "--threads", "1", "--quiet")
    folder = root / "by-file"
    for site in HELD:
        words = ("--data", root / f"{site}.npz", "--site", site, "-o", contribution_path(folder, site))
        done("contribute", root / "plan.json", *words, *same)
    sent = [contribution_path(folder, site) for site in HELD]
    done("distill", root / "plan.json", *sent, "-o", set_path(folder), *same)
    return folder


def start_nodes(deployed: Deployment, root: Path, *sites: str) -> None:
    for site in sites:
        config = {"data": root / f"{site}.npz", "folder": root / f"kept-{site}"}
        deployed.start_node(site, **config, **{k: v for k, v in COMPUTE.items() if k != "threads"})


def ended(path: Path, state: str) -> bool:
    return path.exists() and json.loads(path.read_text())["state"] == state


@pytest.mark.data
def test_a_round_between_processes_survives_its_server_and_gives_the_bytes_of_the_files(real_data, tmp_path) -> None:
    private_data(tmp_path)
    expected = by_file(tmp_path)
    round_ = tmp_path / "round"
    config = {"plan": str(tmp_path / "plan.json"), "folder": str(round_), **COMPUTE}
    with deployment(tmp_path) as deployed:
        deployed.start_server()
        for site in HELD:
            deployed.register(site)
        for site in HELD:
            key, root = tmp_path / f"{site}.key", tmp_path / "ca.crt"
            assert "private key" in check_key(key)
        assert "TLSv1.3" in check_server(deployed.address, root)
        start_nodes(deployed, tmp_path, "east", "north")
        deployed.run(**config)
        wait_for(lambda: len(list((round_ / "contributions").glob("*.safetensors"))) == 2)
        deployed.stop("superlink", signal.SIGKILL)
        for site in ("east", "north"):
            deployed.stop(site)
        assert not set_path(round_).exists()
        deployed.start_server()
        for site in HELD:
            deployed.flwr("supernode", "register", tmp_path / f"{site}.key.pub", "round")
        start_nodes(deployed, tmp_path, *HELD)
        deployed.run(**config)
        wait_for(set_path(round_).exists)
        wait_for(lambda: ended(round_ / "collection.json", "complete"))
    for site in HELD:
        assert contribution_path(round_, site).read_bytes() == contribution_path(expected, site).read_bytes()
    assert set_path(round_).read_bytes() == set_path(expected).read_bytes()
