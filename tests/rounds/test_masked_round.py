"""Rounds with masks, by the commands: five sites, drop-outs, and everything that must stay closed."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command import OPEN, Result, cells, done, run
from masked import COUNTS, SITES
from tiny import tiny_data

from collabdm.documents.codec import format_of
from collabdm.documents.masked_contribution import MASKED_FORMAT
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan, write_plan
from collabdm.documents.unmasking import UNMASKING_FORMAT
from collabdm.errors import PlanError
from collabdm.methods.registry import contribute
from collabdm.rounds.policy import Policy, PolicyError

SMALL = ("--ipc", "2", "--steps", "3", "--batch", "all", "--network", "ConvNet:width=8,depth=1")
CAP = ("--largest-class", "1000")
COMPUTE = ("--device", "cpu", "--precision", "float32", "--quiet")
LARGEST_DIFFERENCE = 1  # grey level of 255, between the sets of a masked and an open round


@dataclass(frozen=True)
class Folder:
    """The files of a round."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    def data(self, site: str) -> Path:
        return self.root / f"{site}.npz"

    def sent(self, site: str, kind: str = "contribution") -> Path:
        return self.root / f"{site}.{kind}"

    def plan_for(self, *more: object, sites: Sequence[str] = SITES) -> Plan:
        for site in sites:
            if not (self.root / f"{site}.pub.json").exists():
                done("keys", site, "-o", self.root)
        keys = [x for site in sites for x in ("--masked-for", self.root / f"{site}.pub.json")]
        shape = ("--classes", "cat,dog,owl", "--image-size", "1x8")
        done("plan", *shape, *keys, *SMALL, *CAP, *more, "-o", self.plan)
        return read_plan(self.plan)

    def contribute(self, site: str, *more: object) -> Result:
        words = ("--data", self.data(site), "--site", site, "-o", self.sent(site))
        key = ("--mask-key", self.root / f"{site}.mask.key")
        return run("contribute", self.plan, *words, *key, *COMPUTE, "--public-batches", *more)

    def unmask(self, site: str, *missing: str) -> Result:
        words = [x for name in missing for x in ("--missing", name)]
        key = ("--mask-key", self.root / f"{site}.mask.key")
        return run(
            "unmask", self.plan, "--site", site, *words, *key, "-o", self.sent(site, "unmasking")
        )

    def distill(self, *files: Path) -> Result:
        return run("distill", self.plan, *files, "-o", self.root / "set.safetensors", *COMPUTE)

    def pixels(self) -> np.ndarray:
        return read_distilled(self.root / "set.safetensors").images.images.numpy().astype(int)


def save(path: Path, counts: Sequence[int], seed: int) -> None:
    data = tiny_data(counts, seed)
    pixels, labels = data.images.numpy(), data.labels.numpy()
    np.savez(path, images=pixels, labels=labels, classes=data.classes)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(tmp_path / "private"))
    for k, site in enumerate(SITES):
        save(tmp_path / f"{site}.npz", COUNTS[k], k)
    return Folder(tmp_path)


def answered(folder: Folder, sites: Sequence[str] = SITES) -> list[Path]:
    for site in sites:
        result = folder.contribute(site)
        assert result.code == 0, result.err
    return [folder.sent(site) for site in sites]


def open_set(folder: Folder, sites: Sequence[str]) -> np.ndarray:
    """The set of the same round without masks, of some of its sites."""
    plan = read_plan(folder.plan).model_copy(update={"masking": None})
    write_plan(plan, folder.root / "open.json")
    files = []
    for site in sites:
        files.append(folder.root / f"{site}.open")
        words = ("--data", folder.data(site), "--site", site, "-o", files[-1])
        done("contribute", folder.root / "open.json", *words, *COMPUTE, *OPEN, "--public-batches")
    output = folder.root / "open.safetensors"
    done("distill", folder.root / "open.json", *files, "-o", output, *COMPUTE)
    return read_distilled(output).images.images.numpy().astype(int)


# --- a whole round -------------------------------------------------------------------------------


@pytest.mark.parametrize("merging", ["weighted", "uniform"])
def test_the_set_of_a_masked_round_is_that_of_an_open_round(folder, merging) -> None:
    folder.plan_for("--merging", merging)
    files = answered(folder)
    assert {format_of(file) for file in files} == {MASKED_FORMAT}
    assert folder.distill(*files).code == 0
    distilled = read_distilled(folder.root / "set.safetensors")
    totals = [sum(counts[y] for counts in COUNTS) for y in range(3)]
    assert distilled.sites == {"sum over east, north, south, west, zenith": totals}
    assert np.abs(folder.pixels() - open_set(folder, SITES)).max() <= LARGEST_DIFFERENCE


def test_a_round_with_random_batches_and_64_bits_gives_the_open_set_to_the_byte(folder) -> None:
    folder.plan_for("--batch", "2", "--set", "masking.bits=64", "--pae")
    assert folder.distill(*answered(folder)).code == 0
    assert np.array_equal(folder.pixels(), open_set(folder, SITES))


def test_the_order_of_the_files_does_not_matter(folder) -> None:
    folder.plan_for()
    files = answered(folder)
    assert folder.distill(*files).code == 0
    first = (folder.root / "set.safetensors").read_bytes()
    assert folder.distill(*files[::-1]).code == 0
    assert (folder.root / "set.safetensors").read_bytes() == first


def test_the_tensors_of_a_file_do_not_show_which_classes_a_site_has(folder) -> None:
    folder.plan_for()
    own = ("site", "content")
    shown = [
        [row for row in cells(done("inspect", file).out) if row[0] not in own]
        for file in answered(folder)
    ]
    assert ["totals", "int32 3, 12 bytes"] in shown[0]
    assert all(rows == shown[0] for rows in shown)


def test_report_and_card_count_the_sites_of_a_sum(folder, tmp_path) -> None:
    folder.plan_for()
    assert folder.distill(*answered(folder)).code == 0
    done("export", folder.root / "set.safetensors", "-o", tmp_path / "exported", "--licence", "mit")
    assert "by 5 sites in one round" in (tmp_path / "exported" / "README.md").read_text()


# --- drop-out ------------------------------------------------------------------------------------


def test_when_a_site_drops_out_the_others_open_their_own_sum(folder) -> None:
    folder.plan_for()
    rest = [site for site in SITES if site != "south"]
    files = answered(folder, rest)
    for site in rest:
        result = folder.unmask(site, "south")
        assert result.code == 0, result.err
        assert "if you know that south has sent its contribution, do not" in result.err
        assert format_of(folder.sent(site, "unmasking")) == UNMASKING_FORMAT
        assert folder.sent(site, "unmasking").stat().st_size < 2000
    files += [folder.sent(site, "unmasking") for site in rest]
    assert folder.distill(*files[::-1]).code == 0
    assert np.abs(folder.pixels() - open_set(folder, rest)).max() <= LARGEST_DIFFERENCE
    names = read_distilled(folder.root / "set.safetensors").sites
    assert list(names) == ["sum over east, north, west, zenith"]


def test_an_incomplete_round_stays_closed_and_lists_who_owes_what(folder) -> None:
    folder.plan_for()
    rest = [site for site in SITES if site != "south"]
    files = answered(folder, rest)
    assert folder.unmask("east", "south").code == 0
    result = folder.distill(*files, folder.sent("east", "unmasking"))
    assert result.code == 2
    assert "owed: contribution of south" in result.err
    assert "`collabdm unmask --missing south` of north, west, zenith" in result.err
    assert not (folder.root / "set.safetensors").exists()


def test_below_the_threshold_the_round_stays_closed(folder) -> None:
    folder.plan_for()
    files = answered(folder, SITES[:3])
    result = folder.distill(*files)
    assert (result.code, "at least 4 sites should contribute" in result.err) == (2, True)
    result = folder.unmask("east", "west", "zenith")
    assert (result.code, "the sum of so few sites stays closed" in result.err) == (2, True)


def test_a_site_answers_about_one_list_of_missing_sites_only(folder) -> None:
    folder.plan_for("--threshold", "3")
    answered(folder, SITES[:4])
    assert folder.unmask("east", "zenith").code == 0
    first = folder.sent("east", "unmasking").read_bytes()
    assert folder.unmask("east", "zenith").code == 0
    assert folder.sent("east", "unmasking").read_bytes() == first
    result = folder.unmask("east", "west")
    assert (result.code, "found an answer about zenith" in result.err) == (2, True)


def test_a_site_that_has_not_contributed_does_not_unmask(folder) -> None:
    folder.plan_for()
    result = folder.unmask("east", "zenith")
    assert (result.code, "should have contributed" in result.err) == (2, True)


def test_the_contribution_of_a_site_declared_missing_is_refused(folder) -> None:
    folder.plan_for()
    files = answered(folder)
    for site in SITES[:4]:
        assert folder.unmask(site, "zenith").code == 0
    result = folder.distill(*files, *(folder.sent(site, "unmasking") for site in SITES[:4]))
    assert (result.code, "found zenith: delete the contribution" in result.err) == (2, True)


# --- refusals ------------------------------------------------------------------------------------


def test_a_site_answers_a_plan_with_the_same_bytes_or_not_at_all(folder) -> None:
    folder.plan_for()
    assert folder.contribute("east").code == 0
    first = folder.sent("east").read_bytes()
    folder.sent("east").unlink()
    assert folder.contribute("east", "--threads", "1").code == 0
    assert folder.sent("east").read_bytes() == first
    folder.sent("east").unlink()
    save(folder.data("east"), (5, 4, 4), 0)
    result = folder.contribute("east")
    assert (result.code, "with other data" in result.err) == (2, True)
    assert not folder.sent("east").exists()


def test_files_of_one_site_twice_of_another_plan_changed_or_open_are_refused_by_name(
    folder,
) -> None:
    folder.plan_for("--seed", "1")
    folder.contribute("west")
    foreign = folder.root / "foreign"
    folder.sent("west").rename(foreign)
    folder.plan_for()
    files = answered(folder)
    broken = folder.root / "broken"
    broken.write_bytes(files[4].read_bytes()[:-1] + b"\x00")
    open_set(folder, ["east"])
    result = folder.distill(files[0], files[0], foreign, broken, folder.root / "east.open")
    assert result.code == 2
    for reason in (
        "found east more than once",
        f"{foreign}: masked contribution of 'west': plan digest should be",
        f"{broken}: masked contribution of 'zenith': content digest",
        "format should be collabdm/masked; found 'collabdm/contribution'",
    ):
        assert reason in result.err


def test_a_key_that_is_not_the_one_in_the_plan_is_refused_at_the_site(folder) -> None:
    folder.plan_for()
    for path, reason in (
        (folder.root / "west.mask.key", "the public key of east in the plan should be that of"),
        (folder.root / "none.key", "found no file"),
        (folder.plan, "should be a private key, PEM; found something else"),
    ):
        result = folder.contribute("east", "--mask-key", path)
        assert (result.code, reason in result.err) == (2, True), result.err
    assert not folder.sent("east").exists()


def test_a_key_that_others_can_read_is_refused(folder) -> None:
    folder.plan_for()
    key = folder.root / "east.mask.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    result = folder.contribute("east")
    assert (result.code, "readable only by its owner" in result.err) == (2, True)


def test_keys_are_never_overwritten_and_live_in_the_private_folder(folder) -> None:
    done("keys", "north")
    private = Path(os.environ["COLLABDM_SITE_FOLDER"]) / "north.mask.key"
    content = private.read_bytes()
    result = run("keys", "north")
    assert (result.code, "never overwritten" in result.err) == (2, True)
    assert private.read_bytes() == content
    public = json.loads((private.parent / "north.pub.json").read_text())
    assert (public["site"], len(public["key"])) == ("north", 64)
    assert run("keys", "../north").code == 2


def test_means_beyond_the_range_are_an_error_at_the_site(folder) -> None:
    folder.plan_for("--set", "masking.range=0.001")
    result = folder.contribute("east")
    assert (result.code, "`masking.range` of the plan" in result.err) == (2, True)
    assert not folder.sent("east").exists()


def test_python_cannot_make_an_open_contribution_to_a_masked_plan_by_mistake(folder) -> None:
    plan = folder.plan_for()
    with pytest.raises(PlanError, match="needs the site's key, and one answer only"):
        contribute(plan, tiny_data(COUNTS[0], 0, plan), "east")


# --- plans, policies and previews ----------------------------------------------------------------


def test_a_plan_for_keys_has_the_settings_that_masks_need(folder) -> None:
    plan = folder.plan_for()
    assert (plan.sites, plan.site_names, plan.local.method) == (5, SITES, "none")
    assert (plan.wire, plan.largest_class, plan.masking.threshold) == ("float32", 1000, 4)
    assert folder.plan_for("--threshold", "3", "--largest-class", "500").masking.threshold == 3


def test_a_plan_for_two_sites_warns_and_one_for_a_site_twice_is_refused(folder) -> None:
    folder.plan_for(sites=SITES[:2])
    keys = [folder.root / f"{site}.pub.json" for site in SITES[:2]]
    shape = ("plan", "--classes", "a,b", "--image-size", "1x8", *SMALL, "-o", folder.plan)
    two = done(*shape, "--masked-for", keys[0], "--masked-for", keys[1])
    assert "each learns the numbers of the other" in two.out
    twice = run(*shape, "--masked-for", keys[0], "--masked-for", keys[0])
    assert (twice.code, "several keys of east" in twice.err) == (2, True)
    both = run(*shape, "--sites", "2", "--masked-for", keys[0], "--masked-for", keys[1])
    assert (both.code, "found both" in both.err) == (2, True)


def test_only_methods_of_statistics_can_be_masked(folder) -> None:
    folder.plan_for()
    keys = [x for site in SITES for x in ("--masked-for", folder.root / f"{site}.pub.json")]
    shape = ("--classes", "a,b", "--image-size", "1x8", "--method", "localdm")
    result = run("plan", *shape, *keys, "-o", folder.root / "other.json")
    assert (result.code, "only statistics can be masked" in result.err) == (2, True)


def test_a_policy_can_demand_masks(folder) -> None:
    masked = folder.plan_for()
    data = tiny_data(COUNTS[0], 0, masked)
    policy = Policy(masked_only=True)
    assert len(policy.release(masked, data, "east").data) == len(data)
    with pytest.raises(PolicyError, match="asks for open contributions"):
        policy.release(masked.model_copy(update={"masking": None}), data, "east")


def test_a_policy_can_name_the_keys_of_the_sites_that_may_take_part(folder) -> None:
    plan = folder.plan_for()
    data = tiny_data(COUNTS[0], 0, plan)
    Policy(site_keys=plan.masking.keys).release(plan, data, "east")
    replaced = plan.masking.keys | {"west": "00" * 32}
    del replaced["south"]
    with pytest.raises(
        PolicyError, match="no such key of south; `site_keys` has no such key of west"
    ):
        Policy(site_keys=replaced).release(plan, data, "east")


def test_dry_run_and_check_state_the_bytes_and_the_key(folder) -> None:
    folder.plan_for()
    dry = dict(cells(folder.contribute("east", "--dry-run").out))
    assert not folder.sent("east").exists()
    assert folder.contribute("east").code == 0
    assert dry["total"] == f"{folder.sent('east').stat().st_size:,} bytes"
    assert "in int32, masked" in dry["class means"]
    words = ("--data", folder.data("east"), "--site", "east")
    checked = done("check", folder.plan, *words, "--mask-key", folder.root / "east.mask.key")
    assert "it belongs to the public key in the plan" in checked.out
    assert "compare them with the other sites" in checked.out
    wrong = run("check", folder.plan, *words, "--mask-key", folder.root / "west.mask.key")
    assert wrong.code == 2


# --- masks and noise -----------------------------------------------------------------------------


def test_a_masked_round_with_noise_is_answered_once_and_counted(folder) -> None:
    plan = folder.plan_for("--epsilon", "5", "--clip", "2")
    assert plan.privacy is not None
    assert plan.masking is not None
    files = answered(folder)
    assert {format_of(file) for file in files} == {MASKED_FORMAT}

    first = files[0].read_bytes()
    assert folder.contribute(SITES[0]).code == 0
    assert files[0].read_bytes() == first

    assert folder.distill(*files).code == 0
    ledger = json.loads((folder.root / "private" / "ledger.json").read_text())
    assert [release["kind"] for release in ledger["releases"]] == ["noised and masked"] * len(SITES)
    assert {release["spent"]["epsilon"] for release in ledger["releases"]} == {5.0}
