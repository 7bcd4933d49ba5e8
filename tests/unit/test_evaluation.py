"""Scores in depth: confusion, classes, CutMix, robustness, and the curve along the refinement."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import NETWORK, answers, tiny_data, tiny_plan

from collabdm.checkpoint import Checkpoint
from collabdm.documents.outcome_files import read_distilled
from collabdm.lab.curves import Curve, chosen_steps
from collabdm.lab.experiment import Experiment
from collabdm.lab.simulate import simulate
from collabdm.matching import compute
from collabdm.matching.augment import cutmix
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import distill
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.dd_ranking import (
    augmentation_robust_score,
    from_accuracies,
    label_robust_score,
    robustness,
)
from collabdm.scoring.evaluation import EvaluationConfig, Score, evaluate, score
from collabdm.scoring.training import RECIPES, Recipe, Task, Trainer, training_set
from collabdm.seeds import Purpose, Stream

SHORT = Recipe(epochs=2)


def stream() -> Stream:
    return Stream.of(5, Purpose.TRAINING)


def test_confusion_counts_every_test_image_once_for_each_network() -> None:
    plan = tiny_plan()
    distilled = distill(plan, answers(plan, [(4, 4, 4), (3, 0, 5)]))
    test = tiny_data((5, 6, 0), seed=9)
    (score,) = evaluate(distilled, test, EvaluationConfig((NETWORK,), 3, SHORT))
    assert [sum(row) for row in score.confusion] == [15, 18, 0]
    right = sum(row[y] for y, row in enumerate(score.confusion))
    assert right == pytest.approx(sum(score.accuracies) * 11)
    assert score.per_class == (score.confusion[0][0] / 15, score.confusion[1][1] / 18, None)


def test_confusion_has_a_row_for_the_class_and_a_column_for_the_answer() -> None:
    labels, taken = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 2, 2, 0])
    assert Confusion.of(labels, taken, 3).counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 1]]


def test_cutmix_pastes_a_box_of_another_image_and_mixes_targets_by_its_pixels() -> None:
    x = (
        torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 8, 8).contiguous()
    )  # every image is its own number
    targets = F.one_hot(torch.arange(6), 6).float()
    random = stream()
    for _ in range(20):
        mixed, soft = cutmix(x, targets, random)
        assert soft.sum(1).allclose(torch.ones(6))
        for i in range(6):
            values, counts = mixed[i].unique(return_counts=True)
            shares = torch.zeros(6).index_add(0, values.long(), counts / counts.sum())
            torch.testing.assert_close(soft[i], shares)
    assert bool((x == torch.arange(6.0).view(6, 1, 1, 1)).all())  # the batch itself is left alone


def test_cutmix_cuts_boxes_of_all_sizes_everywhere() -> None:
    x, targets = torch.eye(2)[:, :1, None, None].expand(2, 1, 16, 16).contiguous(), torch.eye(2)
    random, touched, shares = stream(), torch.zeros(16, 16), []
    for _ in range(200):
        mixed, soft = cutmix(x, targets, random)
        touched += (mixed != x).any(0)[0]
        shares.append(float(soft[0, 0]))
    assert int(touched.min()) > 0
    assert min(shares) < 0.4
    assert max(shares) == pytest.approx(1)


def test_the_strong_recipe_is_adamw_cosine_and_cutmix() -> None:
    strong = RECIPES["strong"]
    assert (strong.optimiser, strong.schedule, strong.cutmix, strong.augment) == (
        "adamw",
        "cosine",
        True,
        True,
    )
    assert not any(recipe.cutmix for name, recipe in RECIPES.items() if name != "strong")


def test_a_network_learns_with_cutmix() -> None:
    plan, data = tiny_plan(), tiny_data((20, 20, 20))
    recipe = RECIPES["strong"].model_copy(
        update={"epochs": 60, "learning_rate": 0.01, "augment": False}
    )
    trainer = Trainer(Task(NETWORK, data, plan_geometry(plan), recipe), Compute(compiled=False))
    trainer.train(0)
    assert trainer.accuracy(data) > 0.6  # brightness tells the classes apart; chance is a third


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_networks_trained_together_are_those_trained_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, data, seeds = tiny_plan(), tiny_data((20, 20, 20)), [3, 4, 5]
    recipe = RECIPES[name].model_copy(update={"epochs": 3, "batch": 20})
    trainer = Trainer(Task(NETWORK, data, plan_geometry(plan), recipe), Compute(compiled=False))
    alone = []
    for seed in seeds:
        trainer.train(seed)
        alone.append(
            trainer.logits(data)
        )  # not weights: a bias before a normalisation moves by rounding alone
    monkeypatch.setitem(compute.NETWORKS_AT_ONCE, "cpu", 2)
    epochs: list[int] = []
    together = [trainer.logits(data) for _ in trainer.train_each(seeds, epochs.append)]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert epochs == [2, 4, 6, 7, 8, 9]
    assert not torch.allclose(alone[0], alone[1], rtol=0.1)


@pytest.mark.parametrize("recipe", [*RECIPES, "batch norm"])
@pytest.mark.parametrize("together", [1, 2])
def test_interrupted_trials_continue_after_any_batch_to_the_same_scores(
    recipe: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compute.NETWORKS_AT_ONCE, "cpu", together)
    plan, data = tiny_plan(), tiny_data((6, 6, 5))
    network = NETWORK.model_copy(update={"norm": "batch"}) if recipe == "batch norm" else NETWORK
    changes = {"epochs": 2, "batch": 6}
    own = RECIPES.get(recipe, RECIPES["paper"]).model_copy(update=changes)
    config = EvaluationConfig(networks=(network, network), trials=3, recipe=own)
    states: list[Checkpoint] = []

    def scores(context: RunContext) -> list[Score]:
        return score("set", data, data, plan_geometry(plan), config, context)

    whole = scores(RunContext(keep=lambda state: states.append(copy.deepcopy(state))))
    alone = together == 1 or recipe == "batch norm"
    assert len(states) == 2 * (3 * 6 + 3 if alone else 6 + 6 + 3)
    for i in range(0, len(states), 2):
        parts = {state.part: state for state in states[: i + 1]}
        batches: list[Checkpoint] = []
        assert scores(RunContext(parts=parts, keep=batches.append)) == whole
        assert len(batches) <= len(states) - i - 1 + 2  # trials that were trained together


def test_networks_whose_images_depend_on_each_other_are_trained_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(compute.NETWORKS_AT_ONCE, "cpu", 2)
    batch_norm = NETWORK.model_copy(update={"norm": "batch"})
    task = Task(batch_norm, tiny_data((6, 6, 6)), plan_geometry(tiny_plan()), SHORT)
    means = [
        n.features[1].running_mean.clone()
        for n in Trainer(task, Compute(compiled=False)).train_each([1, 2])
    ]
    assert not torch.equal(*means)


# --- DD-Ranking ----------------------------------------------------------------------------------


# By hand from Z. Li et al., "DD-Ranking: rethinking the evaluation of dataset distillation", 2025:
# alpha = w IOR - (1 - w) HLR, beta = gamma (syn-aug - rdm-aug) + (1 - gamma)(syn-naug - rdm-naug), both scaled by
# (e^value - e^-1) / (e - e^-1), where e - e^-1 = 2.3504024 and e^-1 = 0.3678794


@pytest.mark.parametrize(
    ("full", "distilled", "random", "weight", "expected"),
    [
        (
            0.8,
            0.5,
            0.3,
            0.5,
            0.2481915,
        ),  # IOR .2, HLR .3, alpha -.05: (.9512294 - .3678794) / 2.3504024
        (
            0.9,
            0.2,
            0.4,
            0.5,
            0.1147670,
        ),  # IOR -.2, HLR .7, alpha -.45: (.6376282 - .3678794) / 2.3504024
        (
            0.8,
            0.5,
            0.3,
            0.25,
            0.2006370,
        ),  # alpha .05 - .225 = -.175: (.8394570 - .3678794) / 2.3504024
        (
            0.5,
            0.5,
            0.5,
            0.5,
            0.2689414,
        ),  # nothing gained, nothing missing: (1 - .3678794) / 2.3504024
        (1.0, 0.0, 1.0, 0.5, 0.0),  # the worst there is: alpha -1
    ],
)
def test_label_robust_score_is_the_published_formula(
    full, distilled, random, weight, expected
) -> None:
    assert label_robust_score(full, distilled, random, weight) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(
    ("augmented", "plain", "weight", "expected"),
    [
        (0.2, 0.1, 0.5, 0.3377953),  # beta .15: (1.1618342 - .3678794) / 2.3504024
        (0.2, -0.1, 0.25, 0.2584368),  # beta .05 - .075 = -.025: (.9753099 - .3678794) / 2.3504024
        (0.0, 0.0, 0.5, 0.2689414),
    ],
)
def test_augmentation_robust_score_is_the_published_formula(
    augmented, plain, weight, expected
) -> None:
    assert augmentation_robust_score(augmented, plain, weight) == pytest.approx(expected, abs=2e-7)


def test_every_trial_has_its_scores_and_their_mean_is_reported() -> None:
    accuracies = {
        "distilled, augmented": [0.5, 0.6],
        "random, augmented": [0.3, 0.6],
        "distilled, plain": [0.4, 0.4],
        "random, plain": [0.3, 0.4],
        "all the data": [0.8, 0.6],
    }
    scores = from_accuracies(accuracies, "augmented")
    assert scores.lrs == pytest.approx((0.2481915 + 0.2689414) / 2, abs=2e-7)
    assert scores.ars == pytest.approx((0.3377953 + 0.2689414) / 2, abs=2e-7)
    assert scores.std["lrs"] == pytest.approx((0.2689414 - 0.2481915) / math.sqrt(2), abs=2e-7)
    assert (scores.hlr, scores.ior, scores.n) == (pytest.approx(0.15), pytest.approx(0.1), 2)


def test_robust_scores_run_from_0_to_1_and_rise_with_the_set() -> None:
    assert augmentation_robust_score(-1.0, -1.0) == pytest.approx(0)
    assert augmentation_robust_score(1.0, 1.0) == pytest.approx(1)
    scores = [label_robust_score(0.9, distilled, 0.3) for distilled in (0.2, 0.4, 0.6, 0.8)]
    assert scores == sorted(scores)
    assert label_robust_score(0.8, 0.6, 0.3, weight=1.0) == pytest.approx(
        augmentation_robust_score(0.3, 0.3)
    )


def test_robustness_compares_with_random_images_with_and_without_augmentation() -> None:
    plan = tiny_plan()
    distilled = distill(plan, answers(plan, [(4, 4, 4), (3, 0, 5)]))
    protocol = EvaluationConfig((NETWORK,), 2, SHORT)
    robust = robustness(distilled, tiny_data((8, 8, 8)), tiny_data((5, 5, 5), seed=9), protocol)
    a = robust.accuracies
    (score,) = evaluate(distilled, tiny_data((5, 5, 5), seed=9), protocol)
    assert a["distilled, augmented"] == pytest.approx(score.mean)
    assert robust.ior == pytest.approx(a["distilled, augmented"] - a["random, augmented"])
    assert robust.hlr == pytest.approx(a["all the data"] - a["distilled, augmented"])
    plain = a["distilled, plain"] - a["random, plain"]
    assert augmentation_robust_score(robust.ior, plain) == pytest.approx(
        robust.ars, abs=0.02
    )  # e^x bends
    assert robust.n == 2


# --- along the refinement ------------------------------------------------------------------------


def test_chosen_steps_are_the_first_and_then_even() -> None:
    assert chosen_steps(40, 4) == [1, 10, 20, 30, 40]
    assert chosen_steps(2, 10) == [1, 2]
    assert chosen_steps(0, 4) == chosen_steps(4, 0) == []


def test_a_curve_has_the_set_of_every_chosen_step_and_ends_at_the_final_one(tmp_path) -> None:
    plan = tiny_plan(refinement={"passes": 2})
    curve = Curve(plan, tmp_path, 3)
    sent = answers(plan, [(4, 4, 4), (3, 0, 5)])
    distilled = distill(plan, sent, RunContext(keep=curve.keep))
    sets = curve.sets(distilled)
    assert list(sets) == [1, 2, 4, 6]
    assert torch.equal(sets[6].images.images, distilled.images.images)
    earlier = [training_set(sets[step]).images for step in (1, 4)]
    assert not torch.equal(*earlier)
    other = plan.model_copy(update={"seed": 8})
    assert not Curve(other, tmp_path, 3).sets(distilled)


def test_a_simulation_scores_its_curve_and_resumes_with_it(tmp_path) -> None:
    plan = {
        "ipc": 1, "steps": 2, "batch": 4, "network": {"width": 8, "depth": 1},
        "local": {"steps": 1, "batch": 4}, "refinement": {"passes": 2},
    }  # fmt: skip
    settings = {
        "data": "digits", "method": "collabdm", "sites": 2, "beta": 0.5, "per_class": 4, "trials": 1,
        "recipe": "short", "epochs": 1, "compare": (), "plan": plan,
    }  # fmt: skip
    results = simulate(Experiment(**settings, curve=2), tmp_path)
    assert [point.step for point in results.curve] == [1, 2, 4]
    assert results.curve[-1].accuracies == results.scores[0].accuracies
    stored = json.loads((tmp_path / "results.json").read_text())
    again = simulate(Experiment(**settings, curve=2), tmp_path)
    assert again.document() == stored
    assert len(read_distilled(tmp_path / "distilled.safetensors").images) == 10
    assert "curve" not in Experiment(**settings).model_dump(
        mode="json"
    )  # older experiments keep their digest
