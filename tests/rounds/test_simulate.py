"""A whole round on one machine: the split, the files in its folder, and the results."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import picture_folder
from pictures import parquet
from pydantic import ValidationError

from collabdm.checkpoint import Checkpoint
from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.partition import Partition
from collabdm.data.sources import limit, load
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.lab.experiment import Experiment
from collabdm.lab.round_data import split_of
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.planning.make import plan_for
from collabdm.planning.presets import PRESETS
from collabdm.planning.settings import merge_settings, network_list, networks_of, plan_settings
from collabdm.progress import Progress, Stage
from collabdm.rounds import resumable as module
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.resumable import ResumableRun
from collabdm.scoring.evaluation import EvaluationConfig, Score, for_as_many_steps, random_baselines
from collabdm.scoring.outcomes import OUTCOME_KINDS
from collabdm.scoring.training import RECIPES
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

PLAN = {
    "ipc": 1,
    "steps": 2,
    "batch": 4,
    "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4},
    "refinement": {"passes": 2},
}


def tiny(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "data": "digits",
        "method": "collabdm",
        "sites": 3,
        "beta": 0.5,
        "per_class": 10,
        "seed": 2,
        "trials": 1,
        "recipe": "short",
        "epochs": 1,
        "compare": (),
        "plan": PLAN,
    }
    return Experiment(**settings | changes)


def ten_of_each() -> ImageSet:
    return limit(load("digits"), 10, Stream.of(2, Purpose.DATA))


def contributions(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "contributions").iterdir())}


def held_by(folder: Path) -> dict[str, list[int]]:
    """The images of each class at each site, as the set says."""
    return read_distilled(folder / "distilled.safetensors").sites


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[Path, Experiment, dict[str, Any]]:
    """A round with every line that a table can have, and two networks."""
    folder = tmp_path_factory.mktemp("compared")
    experiment = tiny(
        method="collabdm-pae",
        compare=("localdm", "localdm-pae", "central-pae", "random", "sites", "all"),
        networks=("ConvNet", "ConvNet:width=9,depth=1"),
        trials=2,
    )
    return folder, experiment, simulate(experiment, folder)


# --- the split -----------------------------------------------------------------------------------


def test_a_saved_partition_replayed_gives_the_same_bytes_of_all_contributions(tmp_path) -> None:
    simulate(tiny(), tmp_path / "first")
    saved = tmp_path / "first" / "partition.json"
    simulate(tiny(partition=str(saved), beta=9.0, sites=2), tmp_path / "second")
    assert contributions(tmp_path / "second") == contributions(tmp_path / "first")
    assert (tmp_path / "second" / "partition.json").read_bytes() == saved.read_bytes()
    assert set(contributions(tmp_path / "first")) == {
        "site-1.safetensors",
        "site-2.safetensors",
        "site-3.safetensors",
    }


def test_a_replayed_partition_that_changed_is_refused(tmp_path) -> None:
    Partition(("a", "b"), (torch.arange(50), torch.arange(50, 100)), 100).save(
        tmp_path / "split.json"
    )
    experiment = tiny(partition=str(tmp_path / "split.json"))
    simulate(experiment, tmp_path / "round")
    Partition(("a", "b"), (torch.arange(60), torch.arange(60, 100)), 100).save(
        tmp_path / "split.json"
    )
    with pytest.raises(
        DocumentError, match="found the same with another partition: choose another folder"
    ):
        simulate(experiment, tmp_path / "round")


def test_no_beta_splits_evenly_and_at_random(tmp_path) -> None:
    split = split_of(tiny(beta=None), ten_of_each())
    assert sorted(map(len, split.index)) == [33, 33, 34]
    assert int(split.counts(ten_of_each()).min()) > 0
    assert (
        split_of(tiny(beta=None, seed=3), ten_of_each()).index[0].tolist()
        != split.index[0].tolist()
    )


def test_a_small_beta_skews_what_a_large_one_spreads() -> None:
    counts = {
        beta: split_of(tiny(beta=beta), ten_of_each()).counts(ten_of_each())
        for beta in (0.05, 1000.0)
    }
    assert int((counts[0.05] >= 9).sum()) >= 8  # classes that one site has all but alone
    assert counts[1000.0].min() >= 2


def test_a_class_floor_gives_every_site_every_class(tmp_path) -> None:
    assert int(split_of(tiny(beta=0.05), ten_of_each()).counts(ten_of_each()).min()) == 0
    simulate(tiny(beta=0.05, class_floor=2), tmp_path)
    assert all(min(counts) >= 2 for counts in held_by(tmp_path).values())
    assert torch.tensor(list(held_by(tmp_path).values())).sum(0).tolist() == [10] * 10


def test_a_site_that_gets_no_image_is_left_out(tmp_path) -> None:
    Partition(
        ("a", "idle", "b"), (torch.arange(50), torch.arange(0), torch.arange(50, 100)), 100
    ).save(tmp_path / "split.json")
    simulate(tiny(partition=str(tmp_path / "split.json")), tmp_path / "round")
    assert set(held_by(tmp_path / "round")) == {"a", "b"}
    assert read_plan(tmp_path / "round" / "plan.json").sites == 2


def test_a_column_names_the_site_of_each_image(tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    labels, hospitals = [0, 1, 0, 1, 1], ["west", "east", "west", "west", "east"]
    parquet(data / "train-00000-of-00001.parquet", labels, ["ill", "well"], hospital=hospitals)
    parquet(
        data / "test-00000-of-00001.parquet", [0, 1], ["ill", "well"], hospital=["west", "west"]
    )
    experiment = tiny(data=str(data), side=8, site_column="hospital", per_class=None)
    simulate(experiment, tmp_path / "round")
    assert held_by(tmp_path / "round") == {"east": [0, 2], "west": [2, 1]}


def test_images_are_resized_first_where_a_side_is_said(tmp_path) -> None:
    simulate(tiny(side=12), tmp_path)
    assert read_plan(tmp_path / "plan.json").image.shape == (1, 12, 12)


def test_sites_may_take_part_in_some_steps_only(tmp_path) -> None:
    simulate(tiny(plan=PLAN | {"fraction": 0.4, "steps": 6}, compare=("central",)), tmp_path)
    plan = read_plan(tmp_path / "plan.json")
    assert plan.site_names == ("site-1", "site-2", "site-3")
    sent = [
        read_contribution(tmp_path / "contributions" / f"{name}.safetensors", plan)
        for name in plan.site_names
    ]
    assert sum(len(answer.statistics.steps) for answer in sent) == 6


def test_test_images_are_labelled_by_the_class_names_of_the_training_images(
    tmp_path, monkeypatch
) -> None:
    picture_folder(tmp_path / "data" / "train", cat=2, dog=2, owl=2)
    picture_folder(tmp_path / "data" / "test", dog=1, owl=2)
    seen = []

    def watch(made: object, test: ImageSet, *_: object) -> list[Score]:
        seen.append(test)
        return [Score("collabdm", "ConvNet", (0.5,), 1)]

    monkeypatch.setitem(
        OUTCOME_KINDS, DistilledSet, replace(OUTCOME_KINDS[DistilledSet], score=watch)
    )
    simulate(tiny(data=str(tmp_path / "data"), sites=1, per_class=None), tmp_path / "round")
    assert seen[0].labels.tolist() == [1, 2, 2]
    assert seen[0].classes == ("cat", "dog", "owl")


# --- the lines of the table ----------------------------------------------------------------------


def test_the_table_has_the_lines_that_were_asked_for_in_that_order(compared) -> None:
    _, _, results = compared
    assert list(dict.fromkeys(s.what for s in results.scores)) == [
        *("collabdm-pae", "localdm", "localdm-pae", "central-pae"),
        *("random real", "random real, pae"),
        *("site-1 alone", "site-2 alone", "site-3 alone"),
        "all the data",
    ]


def test_central_is_one_site_that_holds_everything_and_makes_all_the_steps(compared) -> None:
    folder = compared[0] / "central-pae"
    assert set(contributions(folder)) == {"all.safetensors"}
    assert held_by(folder) == {"all": [10] * 10}
    plan = read_plan(folder / "plan.json")
    assert (plan.sites, plan.steps, plan.pae) == (1, 0, 2)
    assert plan.local.steps == 2 + 2 * 2  # the site's, and two passes of two
    answer = read_contribution(folder / "contributions" / "all.safetensors", plan)
    assert answer.images.counts().tolist() == [1] * 10
    made = read_distilled(folder / "distilled.safetensors")
    assert torch.equal(
        made.images.images, answer.images.images
    )  # nothing is left for the server to do


def test_local_distillation_sends_a_whole_set_and_no_statistics(compared) -> None:
    for name, pae in (("localdm", 1), ("localdm-pae", 2)):
        folder = compared[0] / name
        plan = read_plan(folder / "plan.json")
        assert (plan.steps, plan.pae, plan.local.images, plan.sites) == (0, pae, 1, 3)
        for site, counts in held_by(folder).items():
            answer = read_contribution(folder / "contributions" / f"{site}.safetensors", plan)
            assert answer.statistics.codes.numel() == 0
            assert answer.images.counts().tolist() == [int(count > 0) for count in counts]
        assert read_distilled(folder / "distilled.safetensors").method == name


def test_all_methods_see_the_same_sites(compared) -> None:
    folder, _, results = compared
    assert held_by(folder) == held_by(folder / "localdm") == held_by(folder / "localdm-pae")
    assert results.sets["localdm"].sites == held_by(folder)


def test_random_images_have_the_storage_of_the_set(compared) -> None:
    folder, experiment, results = compared
    images = {s.what: s.images for s in results.scores}
    assert images["random real"] == results.sets["collabdm-pae"].images == 10
    assert images["random real, pae"] == images["collabdm-pae"] == 10 * 2 * 2
    baselines = random_baselines(read_plan(folder / "plan.json"), ten_of_each(), experiment.seed)
    made = read_distilled(folder / "distilled.safetensors")
    whole, reduced = baselines["random real"], baselines["random real, pae"]
    assert whole.counts().tolist() == [1] * 10
    assert reduced.counts().tolist() == [4] * 10
    assert whole.shape == reduced.shape == made.images.shape
    real = {
        tuple((image * 255).round().flatten().tolist())
        for image in ten_of_each().images.float() / 255
    }
    assert all(tuple((image * 255).round().flatten().tolist()) in real for image in whole.images)


def test_the_lines_of_the_sites_and_of_all_the_data_train_on_what_is_held(compared) -> None:
    folder, _, results = compared
    images = {s.what: s.images for s in results.scores}
    for site, counts in held_by(folder).items():
        assert images[f"{site} alone"] == sum(counts)
    assert images["all the data"] == 100


# --- results.json --------------------------------------------------------------------------------


def test_the_results_say_all_that_they_depend_on(compared) -> None:
    folder, experiment, results = compared
    assert json.loads((folder / "results.json").read_text()) == results.document()
    assert results.complete
    assert results.digest == experiment.digest
    assert results.experiment == experiment
    assert results.experiment.seed == 2
    assert results.compute.document() == {"device": "cpu", "precision": "float32", "compiled": None}
    assert results.versions == versions()
    assert "torch" in results.versions


def test_every_score_has_its_accuracies_mean_deviation_and_number(compared) -> None:
    scores = compared[2].document()["scores"]
    assert len(scores) == 2 * 10  # two networks
    for score in scores:
        first, second = score["accuracies"]
        assert score["n"] == 2
        assert score["mean"] == pytest.approx((first + second) / 2)
        assert score["std"] == pytest.approx(abs(first - second) / 2**0.5)
        assert 0 <= score["mean"] <= 1


def test_the_bytes_of_every_file_are_in_the_results(compared) -> None:
    folder, _, results = compared
    for name in ("collabdm-pae", "localdm", "central-pae"):
        place = folder if name == "collabdm-pae" else folder / name
        sizes = {Path(file).stem: len(content) for file, content in contributions(place).items()}
        assert results.sets[name].bytes_per_site == sizes
        assert results.sets[name].bytes == (place / "distilled.safetensors").stat().st_size
        assert results.sets[name].plan == read_plan(place / "plan.json").digest


def test_a_finished_round_is_not_made_again(compared) -> None:
    folder, experiment, results = compared

    def never(event: Progress) -> None:
        pytest.fail(f"{event.label} was made again")

    assert simulate(experiment, folder, RunContext(Compute(), never)) == results


def test_damaged_results_are_made_again(tmp_path) -> None:
    first = simulate(tiny(), tmp_path)
    (tmp_path / "results.json").write_text('{"scores": [')
    assert simulate(tiny(), tmp_path) == first


def test_the_same_experiment_elsewhere_has_the_same_results(tmp_path) -> None:
    assert simulate(tiny(), tmp_path / "a") == simulate(tiny(), tmp_path / "b")


# --- settings ------------------------------------------------------------------------------------


def test_every_setting_moves_the_digest() -> None:
    changes: dict[str, Any] = {
        "data": "mnist", "method": "localdm", "sites": 4, "beta": 0.6, "class_floor": 1,
        "site_column": "x", "partition": "x", "per_class": 11, "side": 16,
        "plan": PLAN | {"ipc": 2}, "networks": ("AlexNet",),
        "trials": 2, "recipe": "paper", "epochs": 2, "seed": 3, "compare": ("random",),
        "curve": 2, "test_per_class": 5, "learning_rate": 0.5, "flows": FIVE_G_NIDD,
        "test_split": "validation", "label_column": "fine", "image_column": "scan",
        "class_names": ("a", "b"), "skip_unreadable": True,
    }  # fmt: skip
    assert set(changes) == set(Experiment.model_fields)
    changes["site_column"] = None  # stands beside none of the others
    digests = {tiny(**{name: value}).digest for name, value in changes.items()}
    assert len(digests | {tiny(per_class=None, site_column="x").digest}) == len(changes) + 1


def test_the_order_of_settings_does_not_matter() -> None:
    turned = tiny(plan=dict(reversed(PLAN.items())))
    assert turned.digest == tiny().digest
    assert turned.model_dump_json() == tiny().model_dump_json()


@pytest.mark.parametrize("name", ["classes", "image", "method", "probe", "site_names", "sites"])
def test_what_the_simulation_fills_in_is_no_setting_of_the_plan(name) -> None:
    with pytest.raises(ValidationError, match=f"`plan` should leave {name} to the simulation"):
        tiny(plan=PLAN | {name: 3})


def test_the_bare_name_of_the_embedding_network_is_that_network() -> None:
    plain = NetworkSpec(width=16, depth=2)
    specs = networks_of(("ConvNet", "ConvNet:width=32", "AlexNet"), plain)
    assert specs == (plain, NetworkSpec(width=32), NetworkSpec(name="AlexNet"))
    assert tiny().evaluation().networks == (NetworkSpec(width=8, depth=1),)


@pytest.mark.parametrize(
    "text", ["LeNet", "ConvNet:width=1", "ConvNet:width", "AlexNet:depth=2", "ConvNet:a=b"]
)
def test_a_network_that_cannot_be_is_refused(text) -> None:
    with pytest.raises(PlanError, match="network"):
        networks_of((text,), NetworkSpec())


def test_networks_by_commas_keep_their_options() -> None:
    text = "AlexNet, ConvNet:width=64,depth=2,norm=group,VGG11"
    assert network_list(text) == ("AlexNet", "ConvNet:width=64,depth=2,norm=group", "VGG11")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_plan(preset) -> None:
    settings = merge_settings(PRESETS[preset], {"network": {"width": 8, "depth": 1}})
    made = plan_for(load("digits"), **plan_settings(settings))
    assert isinstance(made, Plan)


# --- states --------------------------------------------------------------------------------------


def test_a_state_is_kept_now_and_then_taken_up_by_the_same_run_and_dropped_at_the_end(
    tmp_path, monkeypatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    output, state = tmp_path / "a.safetensors", tmp_path / ".a.safetensors.state"

    def stopped_after(steps: int) -> int | None:
        """Keep so many states, four seconds apart, then fail; how many steps were already made."""
        nonlocal now
        with (
            contextlib.suppress(KeyboardInterrupt),
            ResumableRun(output, "run", RunContext()) as run,
        ):
            for step in range(1, steps + 1):
                now += 4.0
                run.keep(Checkpoint(step, {"images": torch.full((1, 1, 2, 2), float(step))}))
                assert state.exists() == (step > 1)  # the third would come after twelve seconds
            raise KeyboardInterrupt
        return run.resume and run.resume.done

    assert stopped_after(3) is None
    assert stopped_after(0) == 2
    with ResumableRun(output, "another run", RunContext()) as run:
        assert run.resume is None
    assert not list(tmp_path.iterdir())


def test_progress_at_a_site_carries_its_name(tmp_path) -> None:
    events: list[Progress] = []
    context = RunContext(report=events.append).at_site("north")
    with ResumableRun(tmp_path / "a", "run", context) as run:
        run.report(Progress(Stage.STATISTICS, 1, 3))
    assert events == [Progress(Stage.STATISTICS, 1, 3, site="north")]


def test_larger_sets_of_real_images_take_as_many_steps_but_each_image_thirty_times_at_least() -> (
    None
):
    protocol = EvaluationConfig(recipe=RECIPES["paper"])  # 1,000 epochs of two batches
    epochs = [
        for_as_many_steps(protocol, 500, images).recipe.epochs for images in (50, 500, 1000, 50_000)
    ]
    assert epochs == [1000, 1000, 500, 30]
    short = EvaluationConfig(recipe=RECIPES["paper"].model_copy(update={"epochs": 3}))
    assert for_as_many_steps(short, 500, 50_000).recipe.epochs == 3
