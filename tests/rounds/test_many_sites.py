"""A thousand small contributions, merged one by one from disk: the bits of merging in memory."""

import weakref
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, VERSIONS, fixed_plan, fixed_statistics

from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes, write_contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet
from collabdm.matching.network_size import statistics_width
from collabdm.methods.collabdm import distill
from collabdm.rounds import contributions
from collabdm.rounds.contributions import ContributionFiles
from collabdm.seeds import Purpose, Stream


def small(plan: Plan, k: int) -> Contribution:
    """The contribution of site k, which has two of the three classes."""
    held = sorted({k % 3, (k + 1) % 3})
    stream = Stream.of(k, Purpose.DATA)
    labels = torch.tensor(held)
    pixels = (stream.uniforms(2, 1, 8, 8) * 255).to(torch.uint8)
    codes = stream.uniforms(plan.steps, 2, statistics_width(plan)).to(torch.float16)
    totals = stream.integers(40, 2).add(1).tolist()
    statistics = fixed_statistics(codes, held, totals)
    return Contribution(
        f"site-{k}", plan.digest, statistics, ImageSet(pixels, labels, CLASSES), VERSIONS
    )


class Watched(ContributionFiles):
    """Counts the contributions in memory at once, and how often one is requested."""

    def __init__(self, plan: Plan, paths: list[Path]) -> None:
        super().__init__(plan, paths)
        self.alive: list[weakref.ref[Contribution]] = []
        self.most = self.read = 0

    def __getitem__(self, site: str) -> Contribution:
        found = super().__getitem__(site)
        self.alive = [ref for ref in [*self.alive, weakref.ref(found)] if ref() is not None]
        self.most = max(self.most, len(self.alive))
        self.read += 1
        return found


@pytest.mark.parametrize(("merging", "sites"), [("weighted", 1000), ("uniform", 50)])
def test_a_thousand_contributions_are_merged_with_none_kept_in_memory(
    merging, sites, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(contributions, "KEPT_IN_MEMORY", 0)
    plan = fixed_plan(sites=sites, merging=merging, ipc=4)
    sent = [small(plan, k) for k in range(sites)]
    paths = []
    for k in (
        Stream.of(1, Purpose.DATA).permutation(sites).tolist()
    ):  # the order of the files is any
        paths.append(tmp_path / f"{k}.safetensors")
        paths[-1].write_bytes(contribution_bytes(sent[k]))
    files = Watched(plan, paths)
    streamed, at_once = distill(plan, files), distill(plan, sent)
    assert torch.equal(streamed.images.images, at_once.images.images)
    assert streamed.sites == at_once.sites
    assert len(streamed.sites) == sites
    assert files.most <= 3
    assert (
        sites <= files.read <= sites + 3 * len(CLASSES) * plan.ipc
    )  # the check of signatures reads some


def files_of(plan: Plan, folder: Path, count: int) -> list[Path]:
    for k in range(count):
        write_contribution(small(plan, k), folder / f"{k}.safetensors")
    return sorted(folder.iterdir())


def test_files_that_fit_in_memory_are_read_once(tmp_path, monkeypatch) -> None:
    plan = fixed_plan()
    paths = files_of(plan, tmp_path, 2)
    files = ContributionFiles(plan, paths)
    for path in paths:
        path.unlink()
    assert [files[site].site for site in files] == ["site-0", "site-1"]


def test_a_file_that_changes_its_site_meanwhile_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(contributions, "KEPT_IN_MEMORY", 0)
    plan = fixed_plan()
    paths = files_of(plan, tmp_path, 2)
    files = ContributionFiles(plan, paths)
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.raises(DocumentError, match="should not change while it is used"):
        files["site-0"]


def test_two_files_of_one_site_are_refused(tmp_path) -> None:
    plan = fixed_plan()
    (path,) = files_of(plan, tmp_path, 1)
    other = tmp_path / "other.safetensors"
    other.write_bytes(path.read_bytes())
    with pytest.raises(DocumentError, match="once; found site-0 more than once"):
        ContributionFiles(plan, [path, other])
