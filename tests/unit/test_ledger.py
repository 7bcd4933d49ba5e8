"""The ledger of a site: one answer to every plan, the same bytes again, and the sum of the budget."""

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from collabdm.privacy.accounting import composed, noise_multiplier, spent_epsilon
from collabdm.privacy.ledger import Ledger, LedgerError, Release, Spent

PLAN, OTHER_PLAN, DATA, OTHER_DATA = ("1" * 64, "2" * 64, "a" * 64, "b" * 64)


def release(content: bytes = b"first", **changes: Any) -> Release:
    fields: dict[str, Any] = {
        "plan": PLAN,
        "site": "north",
        "data": DATA,
        "kind": "masked",
        "file": hashlib.sha256(content).hexdigest(),
    }
    return Release(**fields | changes)


def test_a_new_ledger_is_empty(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.releases() == ()
    assert ledger.stored(PLAN, "north", DATA) is None


def test_a_repeated_answer_is_the_first_one(tmp_path: Path) -> None:
    assert Ledger(tmp_path).record(release(), b"first") == b"first"
    assert Ledger(tmp_path).stored(PLAN, "north", DATA) == b"first"
    assert Ledger(tmp_path).record(release(b"second"), b"second") == b"first"
    assert Ledger(tmp_path).releases() == (release(),)


def test_a_plan_is_not_answered_with_other_data(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(release(), b"first")
    with pytest.raises(LedgerError, match="north has answered plan 1111111111111111… with other"):
        ledger.stored(PLAN, "north", OTHER_DATA)
    with pytest.raises(LedgerError, match="ask for a new plan"):
        ledger.record(release(b"second", data=OTHER_DATA), b"second")
    assert len(ledger.releases()) == 1


def test_other_plans_and_other_sites_have_their_own_answers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(release(), b"first")
    assert ledger.record(release(b"second", plan=OTHER_PLAN), b"second") == b"second"
    assert ledger.record(release(b"third", site="south", data=OTHER_DATA), b"third") == b"third"
    assert [entry.site for entry in ledger.releases()] == ["north", "north", "south"]


def test_an_account_counts_the_name_and_the_data(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entries = [
        release(),
        release(b"second", plan=OTHER_PLAN, data=OTHER_DATA),
        release(b"third", site="south"),
        release(b"fourth", site="east", data="c" * 64),
    ]
    for entry, content in zip(entries, (b"first", b"second", b"third", b"fourth"), strict=True):
        ledger.record(entry, content)
    assert ledger.account("north", DATA) == entries[:3]


def test_only_the_owner_reads_the_ledger_and_its_copies(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(release(), b"first")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("damage", ["other bytes", "absent"])
def test_a_copy_that_changed_is_not_replaced_by_a_second_answer(tmp_path, damage) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(release(), b"first")
    copy = next((tmp_path / "released").iterdir())
    copy.unlink()
    if damage == "other bytes":
        copy.write_bytes(b"other")
    with pytest.raises(LedgerError, match="this plan cannot be answered a second time"):
        ledger.stored(PLAN, "north", DATA)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"releases": [{}]}'])
def test_a_damaged_ledger_is_not_taken_for_an_empty_one(tmp_path: Path, content: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.path.write_text(content)
    with pytest.raises(LedgerError, match="should be a ledger"):
        ledger.stored(PLAN, "north", DATA)


def test_of_many_answers_at_once_one_is_released(tmp_path: Path) -> None:
    contents = [str(number).encode() for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        sent = set(pool.map(lambda c: Ledger(tmp_path).record(release(c), c), contents))
    assert len(sent) == len(Ledger(tmp_path).releases()) == 1
    assert Ledger(tmp_path).stored(PLAN, "north", DATA) in sent


def test_the_entry_describes_the_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Ledger(tmp_path).record(release(b"first"), b"second")


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (10.0, 1e-5), (0.1, 1e-6)])
def test_the_noise_is_that_of_an_independent_accountant(epsilon: float, delta: float) -> None:
    found = dp_accounting.calibrate_dp_mechanism(
        PLDAccountant, dp_accounting.GaussianDpEvent, epsilon, delta
    )
    assert noise_multiplier(epsilon, delta) == pytest.approx(found, rel=2e-3)


def test_releases_add_up_as_an_independent_accountant_finds() -> None:
    multipliers, delta = [3.0, 5.0, 8.0], 1e-5
    accountant = PLDAccountant()
    for z in multipliers:
        accountant.compose(dp_accounting.GaussianDpEvent(z))
    assert spent_epsilon(multipliers, delta) == pytest.approx(
        accountant.get_epsilon(delta), rel=2e-3
    )


def test_one_release_spends_its_budget_and_none_spends_nothing() -> None:
    assert spent_epsilon([noise_multiplier(1.0, 1e-5)], 1e-5) == pytest.approx(1.0)
    assert spent_epsilon([], 1e-5) == 0
    assert composed([2.0]) == 2.0


def test_a_budget_is_positive() -> None:
    with pytest.raises(ValueError, match="delta"):
        Spent(noise_multiplier=1, epsilon=1, delta=1)
