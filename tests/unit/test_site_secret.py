"""The secret of a site: created once, readable by its owner alone, and behind its batches."""

import stat
from pathlib import Path

import pytest
import torch
from tiny import OPEN, tiny_data, tiny_plan

from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import OutputError
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute
from collabdm.privacy.site_folder import FOLDER_VARIABLE
from collabdm.privacy.site_secret import SECRET_BYTES, SECRET_FILE, secret_seed, site_secret
from collabdm.rounds.exchange import Site, contribute_file, prepare_site

DATA = tiny_data((9, 8, 7))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "private"))
    return tmp_path / "private"


def made(plan: Plan, path: Path, public: bool = False) -> Contribution:
    prepared = prepare_site(plan, DATA, Site("north", OPEN, public_batches=public))
    return contribute_file(prepared, path, RunContext())


def test_the_secret_is_created_once_for_its_owner_alone(folder: Path) -> None:
    secret = site_secret()
    assert len(secret) == SECRET_BYTES
    assert site_secret() == secret
    assert stat.S_IMODE((folder / SECRET_FILE).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [SECRET_FILE]


def test_a_secret_of_another_length_is_refused(folder: Path) -> None:
    site_secret()
    (folder / SECRET_FILE).write_bytes(b"short")
    with pytest.raises(OutputError, match="should have 32 bytes; found 5"):
        site_secret()


def test_the_seed_depends_on_the_secret_the_plan_and_the_site(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = {secret_seed(plan, site) for plan in ("a", "b") for site in ("north", "south")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert secret_seed("a", "north") in seeds
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "other"))
    assert secret_seed("a", "north") not in seeds


def test_batches_are_secret_and_a_repetition_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(batch=4)
    first = made(plan, tmp_path / "a")
    made(plan, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    public = contribute(plan, DATA, "north")
    assert not torch.equal(first.statistics.codes, public.statistics.codes)
    assert not torch.equal(first.images.images, public.images.images)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "other"))
    made(plan, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()


def test_public_batches_are_those_that_anyone_can_draw(folder: Path, tmp_path: Path) -> None:
    plan = tiny_plan(batch=4)
    made(plan, tmp_path / "a", public=True)
    assert (tmp_path / "a").read_bytes() == contribution_bytes(contribute(plan, DATA, "north"))
    assert not folder.exists()


def test_means_of_whole_classes_do_not_depend_on_the_secret(folder: Path, tmp_path: Path) -> None:
    plan = tiny_plan(local={"method": "none"})
    assert contribution_bytes(made(plan, tmp_path / "a")) == contribution_bytes(
        contribute(plan, DATA, "north")
    )
