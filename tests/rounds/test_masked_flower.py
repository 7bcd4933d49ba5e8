"""A masked round over Flower: the files of the commands, and a second question after a drop-out."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command import OPEN, done

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'collabdm[flower]'")

from deployed import deployment, wait_for
from fashion import COMPUTE, private_data, write_given
from flwr.app import Message
from in_process import InProcess, Node, data_node
from masked import COUNTS, SITES, masked_plan
from tiny import tiny_data

from collabdm.documents.codec import format_of
from collabdm.documents.masked_contribution import MASKED_FORMAT
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.documents.public_key import read_public_key
from collabdm.errors import DocumentError
from collabdm.flower.collecting import CollectionError, contribution_path
from collabdm.flower.server import outcome_path, serve
from collabdm.planning.make import plan_for
from collabdm.privacy.site_keys import create_keys, private_key_path, read_private_key
from collabdm.rounds.masked import MaskedSite, unmasking_content

LOST = "south"
REST = tuple(site for site in SITES if site != LOST)
COLLECTION = {"quorum": 1, "deadline": 100.0}


@pytest.fixture
def private(tmp_path, monkeypatch) -> Path:
    """The private folder of all sites, with a key for each."""
    folder = tmp_path / "private"
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(folder))
    for site in SITES:
        create_keys(site)
    return folder


@pytest.fixture
def plan(private) -> Plan:
    keys = {site: read_private_key(private_key_path(site)) for site in SITES}
    return masked_plan(keys, threshold=3, collection=COLLECTION)


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for k, site in enumerate(SITES):
        held = tiny_data(COUNTS[k], k)
        pixels, labels = held.images.numpy(), held.labels.numpy()
        np.savez(folder / f"{site}.npz", images=pixels, labels=labels, classes=held.classes)
    return folder


def nodes(data: Path, sites: Sequence[str] = SITES, **config: object) -> dict[int, Node]:
    return {100 + SITES.index(site): data_node(site, data, **config) for site in sites}


def silent(message: Message) -> list[Message]:
    return []


def settings(plan: Plan, root: Path) -> dict[str, object]:
    write_plan(plan, root / "given.json")
    paths = {"plan": str(root / "given.json"), "folder": str(root / "round")}
    return paths | {"device": "cpu", "precision": "float32"}


def run_round(plan: Plan, root: Path, these: dict[int, Node]) -> InProcess:
    grid = InProcess(these)
    serve(grid, settings(plan, root), grid.hours.clock)
    return grid


def by_file(plan: Plan, data: Path, root: Path, sites: Sequence[str]) -> np.ndarray:
    """The set of the same round without masks, by the commands."""
    opened = plan.model_copy(update={"masking": None})
    write_plan(opened, root / "open.json")
    files = [root / f"{site}.open" for site in sites]
    compute = ("--device", "cpu", "--precision", "float32", "--quiet")
    for site, file in zip(sites, files, strict=True):
        words = ("--data", data / f"{site}.npz", "--site", site, "-o", file)
        done("contribute", root / "open.json", *words, *compute, *OPEN)
    done("distill", root / "open.json", *files, "-o", root / "open.safetensors", *compute)
    return read_distilled(root / "open.safetensors").images.images.numpy().astype(int)


def difference(plan: Plan, data: Path, root: Path, sites: Sequence[str]) -> int:
    """The largest difference of a pixel between the masked and the open set."""
    distilled = read_distilled(outcome_path(plan, root / "round"))
    assert list(distilled.sites) == [f"sum over {', '.join(sites)}"]
    pixels = distilled.images.images.numpy().astype(int)
    return int(np.abs(pixels - by_file(plan, data, root, sites)).max())


def test_masked_contributions_come_by_flower_and_give_the_open_set(plan, data, tmp_path) -> None:
    run_round(plan, tmp_path, nodes(data))
    folder = tmp_path / "round"
    assert {format_of(contribution_path(folder, site)) for site in SITES} == {MASKED_FORMAT}
    assert difference(plan, data, tmp_path, SITES) <= 1
    assert not (folder / "unmasking").exists()


def test_nodes_that_may_unmask_open_a_round_without_the_lost_site(plan, data, tmp_path) -> None:
    these = nodes(data, REST, unmask=True) | {100 + SITES.index(LOST): silent}
    run_round(plan, tmp_path, these)
    assert difference(plan, data, tmp_path, REST) <= 1
    assert json.loads((tmp_path / "round" / "unmasking" / "missing.json").read_text()) == [LOST]


def test_nodes_do_not_unmask_unless_their_settings_allow_it(plan, data, tmp_path, private) -> None:
    these = nodes(data, REST)
    with pytest.raises(CollectionError, match=f"--missing {LOST}` at each of them"):
        run_round(plan, tmp_path, these)
    folder = tmp_path / "round"
    assert not outcome_path(plan, folder).exists()
    for site in REST:  # the operators answer by file, and the round is run again
        key = read_private_key(private / f"{site}.mask.key")
        answer = unmasking_content(MaskedSite(plan, site, key), [LOST])
        (folder / "unmasking" / f"{site}.safetensors").write_bytes(answer)
    run_round(plan, tmp_path, these)
    assert difference(plan, data, tmp_path, REST) <= 1


def test_a_site_declared_missing_is_not_let_in_when_the_round_runs_again(
    plan, data, tmp_path
) -> None:
    with pytest.raises(CollectionError):
        run_round(plan, tmp_path, nodes(data, REST))
    grid = run_round(plan, tmp_path, nodes(data, unmask=True))
    folder = tmp_path / "round"
    assert not contribution_path(folder, LOST).exists()
    assert len(grid.asked) == len(SITES)  # the second question alone
    assert difference(plan, data, tmp_path, REST) <= 1


def test_below_the_threshold_nobody_is_asked_to_unmask(plan, data, tmp_path) -> None:
    with pytest.raises(CollectionError, match="too few"):
        run_round(plan, tmp_path, nodes(data, SITES[:2], unmask=True))
    assert not (tmp_path / "round" / "unmasking").exists()


def test_a_node_without_its_key_refuses_in_a_fixed_sentence(plan, data, tmp_path, private) -> None:
    (private / "east.mask.key").unlink()
    with pytest.raises(CollectionError, match="--missing east"):
        run_round(plan, tmp_path, nodes(data))
    refused = json.loads((tmp_path / "round" / "collection.json").read_text())["refused"]
    assert refused == {"east": "the site's private key is missing, or is not the one in the plan"}


def test_a_damaged_list_of_missing_sites_stops_the_round(plan, data, tmp_path) -> None:
    (tmp_path / "round" / "unmasking").mkdir(parents=True)
    (tmp_path / "round" / "unmasking" / "missing.json").write_text('["nobody"]')
    with pytest.raises(DocumentError, match="should list the missing sites"):
        run_round(plan, tmp_path, nodes(data))


# --- real processes ------------------------------------------------------------------------------

HELD = {"east": (0, 1, 2, 3), "north": (3, 4, 5, 6), "south": (1, 8), "west": (6, 7, 8, 9)}


@pytest.mark.data
@pytest.mark.slow
def test_a_masked_round_between_processes_survives_a_drop_out(
    real_data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(tmp_path / "private"))
    images = private_data(tmp_path, HELD)
    keys = {site: read_public_key(create_keys(site)).key for site in HELD}
    plan = plan_for(
        images,
        sites=4,
        site_names=tuple(HELD),
        ipc=2,
        steps=2,
        network={"width": 8, "depth": 2},
        wire="float32",
        local={"method": "none"},
        largest_class=1000,
        masking={"keys": keys, "threshold": 3},
        collection={"quorum": 3, "deadline": 400},
    )
    config = {"plan": str(write_given(plan, tmp_path)), "folder": str(tmp_path / "round")}
    there = [site for site in HELD if site != LOST]
    with deployment(tmp_path) as deployed:
        deployed.start_server()
        deployed.register(*HELD)
        for site in HELD:  # the lost site cannot read its data
            where = tmp_path / "unmounted" if site == LOST else tmp_path / f"{site}.npz"
            deployed.start_node(site, data=where, unmask="true", **COMPUTE)
        deployed.run(**config, **COMPUTE)
        wait_for(outcome_path(plan, tmp_path / "round").exists, 420)
    assert difference(plan, tmp_path, tmp_path, there) <= 1
