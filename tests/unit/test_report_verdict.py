"""The verdict of a report, the intervals behind it, and the marks in its tables."""

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from collabdm.lab.experiment import Experiment
from collabdm.lab.results import ComputeRecord, ScoreRecord, SetRecord, SimulationResults
from collabdm.methods.registry import METHODS
from collabdm.report.contestants import by_network, is_method, is_yardstick, ties_with
from collabdm.report.intervals import paired, welch
from collabdm.report.palette import look_of
from collabdm.report.rounds import RoundFiles
from collabdm.report.score_tables import comparison_table, marks_of, score_table
from collabdm.report.series import MOST_SERIES, points_of, shown_methods
from collabdm.report.verdict import seed_verdicts, verdict_of
from collabdm.scoring.evaluation import Score


def scores(**accuracies: tuple[float, ...]) -> list[Score]:
    """Scores by the name of the set; an underscore is a space."""
    names = {name.replace("_", " "): values for name, values in accuracies.items()}
    return [Score(name, "ConvNet", values, 10) for name, values in names.items()]


def round_of(found: list[Score], name: str = "a", **settings: Any) -> RoundFiles:
    """A round with the results of a simulation, and nothing else."""
    experiment = Experiment(**{"data": "digits", "method": "collabdm", "compare": ()} | settings)
    results = SimulationResults(
        experiment=experiment,
        digest=experiment.digest,
        complete=True,
        compute=ComputeRecord(device="cpu", precision="float32"),
        versions={},
        sets={
            score.what: SetRecord(plan="", bytes_per_site={"s": 9}, bytes=9, images=10, sites={})
            for score in found
            if is_method(score.what)
        },
        scores=tuple(ScoreRecord.of(score) for score in found),
    )
    return RoundFiles(name, results=results)


CLEAR = scores(
    collabdm=(0.90, 0.91, 0.92), localdm=(0.70, 0.71, 0.69), random_real=(0.60, 0.61, 0.62)
)


# --- intervals -----------------------------------------------------------------------------------


def test_the_interval_is_welchs() -> None:
    first, second = (0.9, 0.93, 0.95, 0.91), (0.7, 0.85, 0.8)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    gap = welch(first, second)
    assert gap.low == pytest.approx(100 * expected.low)
    assert gap.high == pytest.approx(100 * expected.high)
    assert gap.points == pytest.approx(100 * (sum(first) / 4 - sum(second) / 3))


def test_the_interval_over_seeds_is_that_of_paired_differences() -> None:
    differences = [0.01, 0.03, 0.05, 0.02]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert paired(differences)[1:] == pytest.approx((100 * expected.low, 100 * expected.high))


@pytest.mark.parametrize(("first", "second"), [((0.9,), (0.1, 0.2)), ((0.5, 0.5), (0.4, 0.4))])
def test_there_is_no_interval_without_a_spread(first, second) -> None:
    gap = welch(first, second)
    assert (gap.low, gap.high, gap.clear) == (None, None, False)
    assert paired([0.1]).low is None


# --- the verdict of a round ----------------------------------------------------------------------


def test_the_verdict_names_the_best_set_its_distance_interval_and_n() -> None:
    verdict = verdict_of(round_of(CLEAR))
    assert verdict is not None
    assert verdict.kind == "above"
    assert verdict.lead == (
        "collabdm is the best of the methods: 91.0 %. This is 30.0 points above random real images of the same storage "
        "(random real, 61.0 %); 95 % interval +27.7 to +32.3."
    )
    assert "n = 3 and 3" in verdict.method
    assert "share one split and one seed" in verdict.method


def test_a_set_within_the_interval_of_the_best_is_named_and_nothing_is_called_best() -> None:
    close = scores(collabdm=(0.8, 0.9), localdm=(0.79, 0.89), random_real=(0.1, 0.12))
    verdict = verdict_of(round_of(close))
    assert verdict is not None
    assert "has the highest accuracy" in verdict.lead
    assert "Not distinguishable from it: localdm." in verdict.lead


def test_a_difference_whose_interval_contains_0_is_no_difference() -> None:
    verdict = verdict_of(round_of(scores(collabdm=(0.5, 0.9), random_real=(0.5, 0.8))))
    assert verdict is not None
    assert verdict.kind == "unclear"
    assert "The interval contains 0: no difference is shown." in verdict.lead


def test_a_set_worse_than_random_images_is_said_to_be() -> None:
    verdict = verdict_of(round_of(scores(collabdm=(0.50, 0.51), random_real=(0.80, 0.81))))
    assert verdict is not None
    assert verdict.kind == "below"
    assert "30.0 points below random real images" in verdict.lead


def test_the_stronger_of_two_random_baselines_is_compared_with() -> None:
    found = [
        *scores(collabdm=(0.90, 0.91), random_real=(0.60, 0.61)),
        Score("random real, pae", "ConvNet", (0.85, 0.86), 40),
    ]
    verdict = verdict_of(round_of(found))
    assert verdict is not None
    assert (
        "5.0 points above random real images of the same storage (random real, pae" in verdict.lead
    )


def test_one_network_gives_no_interval_and_the_option_that_does() -> None:
    verdict = verdict_of(round_of(scores(collabdm=(0.9,), random_real=(0.6,))))
    assert verdict is not None
    assert verdict.kind == "open"
    assert "interval" not in verdict.lead
    assert "No interval: n = 1 and 1 networks. `--trials 5`" in verdict.method


def test_without_random_images_the_verdict_names_the_option_that_adds_them() -> None:
    simulated = verdict_of(round_of(scores(collabdm=(0.9, 0.8)), compare=("localdm",)))
    assert simulated is not None
    assert simulated.kind == "open"
    assert "`--compare localdm,random` adds them" in simulated.method


def test_yardsticks_are_never_best() -> None:
    found = [*CLEAR, Score("all the data", "ConvNet", (0.99, 0.98), 99)]
    found += [Score("site-1 alone", "ConvNet", (0.97, 0.98), 50)]
    found += [Score("central-pae", "ConvNet", (0.97, 0.98), 10)]
    verdict = verdict_of(round_of(found))
    assert verdict is not None
    assert verdict.lead.startswith("collabdm is the best")
    assert marks_of(found).keys() == {"collabdm"}
    assert all(is_yardstick(name) == METHODS[name].pooled for name in METHODS)


def test_a_round_without_scores_of_methods_has_no_verdict() -> None:
    assert verdict_of(RoundFiles("empty")) is None
    assert verdict_of(round_of(scores(random_real=(0.5, 0.6)))) is None


# --- several rounds ------------------------------------------------------------------------------


def test_rounds_that_differ_only_in_their_seed_have_a_verdict_over_seeds() -> None:
    gains = (0.10, 0.12, 0.14)
    rounds = [
        round_of(scores(collabdm=(0.6 + gain,), random_real=(0.6,)), f"r{seed}", seed=seed)
        for seed, gain in enumerate(gains)
    ]
    (verdict,) = seed_verdicts(rounds)
    assert verdict.kind == "above"
    assert "12.0 points above" in verdict.lead
    assert "+7.0 to +17.0" in verdict.lead
    assert "n = 3 seeds (0, 1, 2), each with its own split" in verdict.method


def test_rounds_of_other_settings_are_no_seeds() -> None:
    rounds = [round_of(CLEAR, seed=0), round_of(CLEAR, seed=1, sites=7)]
    assert seed_verdicts(rounds) == []
    assert seed_verdicts([rounds[0], rounds[0]]) == []


def test_the_comparison_has_a_column_for_each_round_and_marks_the_best_in_each() -> None:
    other = scores(
        localdm=(0.9, 0.91), collabdm=(0.1, 0.11), site_1_alone=(0.3,), site_2_alone=(0.2,)
    )
    table = comparison_table([round_of(CLEAR), round_of(other, "b")], ["1: a", "2: b"])
    assert table.columns == ("trained on", "1: a", "2: b")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["collabdm"] == ("91.0 ± 1.0 (3)", "10.5 ± 0.7 (2)")
    assert rows["random real"][1] == "-"
    assert rows["each site alone"] == ("-", "20.0 to 30.0")
    marked = {(table.rows[row][0], column) for row, column in table.marks}
    assert marked == {("collabdm", 1), ("localdm", 2)}


# --- tables --------------------------------------------------------------------------------------


def test_rows_are_sorted_and_ties_follow_the_best() -> None:
    found = scores(
        random_real=(0.60, 0.61), collabdm=(0.8, 0.9), localdm=(0.79, 0.89), fedd3=(0.50, 0.51)
    )
    table = score_table(round_of(found))
    assert [row[0] for row in table.rows] == ["collabdm", "localdm", "random real", "fedd3"]
    texts = {table.rows[row][0]: mark.text for (row, _), mark in table.marks.items()}
    assert texts["collabdm"] == "highest"
    assert texts["localdm"] == "tie"


def test_ties_end_at_the_first_clear_difference() -> None:
    found = scores(
        collabdm=(0.9, 0.902), localdm=(0.83, 0.832), fedd3=(0.4, 0.9), coreset=(0.2, 0.9)
    )
    assert welch(found[0].accuracies, found[2].accuracies).clear is False
    assert ties_with(found[0], found) == []
    assert [mark.text for mark in marks_of(found).values()] == ["best"]


def test_networks_of_one_name_are_kept_apart() -> None:
    twice = [Score("collabdm", "ConvNet", (x,), 1) for x in (0.5, 0.7)]
    assert list(by_network(twice)) == ["ConvNet", "ConvNet (2)"]
    assert [row[:3] for row in score_table(round_of(twice)).rows] == [
        ("collabdm", "ConvNet", "50.0"),
        ("collabdm", "ConvNet (2)", "70.0"),
    ]


# --- colours and series --------------------------------------------------------------------------


def test_every_method_has_a_look_of_its_own() -> None:
    looks = [look_of(name) for name in METHODS]
    assert len(set(looks)) == len(looks)
    assert len({(look.marker, look.filled) for look in looks}) == len(looks)


def test_the_look_depends_on_the_name_only_and_not_on_remarks() -> None:
    assert look_of("dense, best student of 20") == look_of("dense")
    assert look_of("collabdm-pae").colour == look_of("collabdm").colour
    assert look_of("somebodys-own") == look_of("somebodys-own")


def _linear(channel: int) -> float:
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def _as_deuteranope(colour: str) -> tuple[float, ...]:
    """Simulate a missing green receptor (F. Viénot et al., 1999), in linear RGB."""
    red, green, blue = (_linear(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    mixed = 0.29275 * red + 0.70725 * green
    return mixed, mixed, -0.02234 * red + 0.02234 * green + blue


def test_methods_of_close_colours_for_a_deuteranope_differ_in_their_marker() -> None:
    looks = {look_of(name) for name in METHODS}
    for one in looks:
        for other in looks - {one}:
            pairs = zip(_as_deuteranope(one.colour), _as_deuteranope(other.colour), strict=True)
            if max(abs(a - b) for a, b in pairs) < 0.05:
                assert (one.marker, one.filled) != (other.marker, other.filled)


def test_no_plot_has_more_methods_than_can_be_told_apart() -> None:
    names = [name for name in METHODS if is_method(name)]
    found = [Score(name, "ConvNet", (0.1 + i / 100,), 5) for i, name in enumerate(names)]
    shown = shown_methods(points_of([(1, round_of(found))]))
    assert len(names) > MOST_SERIES == len(shown)
    assert shown[0] == names[0]
    assert set(shown[1:]) == set(names[-MOST_SERIES + 1 :])


def test_points_of_rounds_that_differ_only_in_ipc_have_common_settings() -> None:
    rounds = [round_of(CLEAR, plan={"ipc": n, "steps": 3}) for n in (1, 5)]
    rounds += [round_of(CLEAR, plan={"ipc": 1, "steps": 4})]
    first, second, third = ({p.settings for p in points_of([(1, files)])} for files in rounds)
    assert first == second
    assert first != third


def test_the_guide_lists_the_marker_of_every_method() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guide-report.md"
    rows = [line.split("|") for line in guide.read_text(encoding="utf-8").splitlines()]
    markers = {
        name.strip(): glyph.strip()
        for _, names, _, glyphs, _ in (row for row in rows if len(row) == 5)
        for name, glyph in zip(names.split(","), glyphs.split(","), strict=False)
    }
    assert {name: markers[name] for name in METHODS} == {
        name: look_of(name).glyph for name in METHODS
    }
