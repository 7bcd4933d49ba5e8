"""Exported sets: folders of the hub, pictures and arrays with the same pixels, and models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from command import cells, done, run
from huggingface_hub import DatasetCard
from pictures import draw
from test_trained_model import pictures, tiny_model
from tiny import COLOUR, fixed_plan, tiny_plan

from collabdm.data.sources import load
from collabdm.documents.outcome_files import write_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError, OutputError, PlanError
from collabdm.export.card import Card, card_text
from collabdm.export.dataset import export
from collabdm.export.onnx import TARGETS, onnx_bytes
from collabdm.images import ImageSet
from collabdm.scoring.evaluation import Score
from collabdm.scoring.trained_model import read_model, state_tensors, write_model
from collabdm.scoring.training import training_set
from collabdm.seeds import Purpose, Stream


def coloured(pae: int = 1, **settings: object) -> DistilledSet:
    plan = tiny_plan(COLOUR, pae=pae, **settings)
    labels = torch.arange(3).repeat_interleave(2)
    pixels = (Stream.of(4, Purpose.DATA).uniforms(6, 3, 8, 8) * 256).to(torch.uint8)
    return DistilledSet(
        ImageSet(pixels, labels, plan.classes),
        plan,
        {"north": [3, 0, 5], "south": [0, 4, 0]},
        "collabdm",
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")


def from_hub_folder(folder: Path, cache: Path) -> ImageSet:
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    pixels = [torch.tensor(np.asarray(row["image"])) for row in rows]
    images = torch.stack([p[None] if p.ndim == 2 else p.permute(2, 0, 1) for p in pixels])
    return ImageSet(images, torch.tensor(rows["label"][:]), tuple(rows.features["label"].names))


def same(a: ImageSet, b: ImageSet) -> bool:
    return (
        a.classes == b.classes
        and torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
    )


@pytest.mark.parametrize("pae", [1, 2])
def test_load_dataset_gives_the_tensors_of_a_packed_set(tmp_path, pae) -> None:
    made = coloured(pae)
    export(made, tmp_path / "set", packed=True)
    assert same(from_hub_folder(tmp_path / "set", tmp_path / "c"), made.images)
    assert same(load(str(tmp_path / "set" / "data")), made.images)


def test_an_exported_set_contains_the_training_images(tmp_path) -> None:
    made = coloured(2)
    written = export(made, tmp_path / "set")
    expected = training_set(made)
    assert len(written) == 24
    assert bool(((written.images.float() / 255 - expected.images).abs() <= 0.5 / 255 + 1e-6).all())
    assert same(from_hub_folder(tmp_path / "set", tmp_path / "c"), written)
    card = (tmp_path / "set" / "README.md").read_text()
    assert "here they are separate and enlarged, ready to train on." in card
    assert "train on them as on any labelled images" in card


def test_the_card_of_packed_images_does_not_advise_to_train_on_them(tmp_path) -> None:
    export(coloured(2), tmp_path / "set", packed=True)
    card = (tmp_path / "set" / "README.md").read_text()
    assert "cut every image into 2 x 2 tiles" in card
    assert "train on them as on any labelled images" not in card


def test_the_code_on_the_card_loads_the_set(tmp_path) -> None:
    made = coloured(2)
    written = export(made, tmp_path / "set")
    code = (tmp_path / "set" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(tmp_path / "set")), names)
    assert names["images"]["label"][:] == written.labels.tolist()


@pytest.mark.parametrize(("form", "place"), [("folder", ""), ("npz", "train.npz")])
def test_pictures_and_arrays_give_the_tensors_of_the_set(tmp_path, form, place) -> None:
    made = coloured()
    export(made, tmp_path / "set", form)
    assert same(load(str(tmp_path / "set" / place)), made.images)


def test_a_torch_data_set_of_the_folder_gives_the_same_tensors(tmp_path) -> None:
    made = coloured()
    export(made, tmp_path / "set")
    rows = datasets.load_dataset(
        str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "c")
    ).with_format("torch")
    batches = list(torch.utils.data.DataLoader(rows, batch_size=4))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), made.images.images)
    assert torch.equal(torch.cat([batch["label"] for batch in batches]), made.images.labels)


def test_the_card_contains_licence_counts_and_scores_if_asked(tmp_path) -> None:
    made = coloured(2)
    scores = (Score("collabdm", "ConvNet", (0.49, 0.5, 0.51), 6),)
    export(made, tmp_path / "a", packed=True, card=Card("cc-by-4.0", True, scores, "digits"))
    export(made, tmp_path / "b", packed=True)
    full, bare = ((tmp_path / name / "README.md").read_text() for name in "ab")
    assert "license: cc-by-4.0" in full
    assert "accuracy 50.0 % on digits test images (std 1.0, n = 3)" in full
    assert "| north | 3 | 0 | 5 |" in full
    assert "north" not in bare
    assert "license" not in bare
    assert "No licence was named" in bare
    for text in (full, bare):
        assert "**Each image contains 4 small ones**" in text
        plan = json.loads(text.split("```json\n")[1].split("```")[0])
        assert type(made.plan).model_validate_json(json.dumps(plan)) == made.plan
    assert (tmp_path / "a" / "preview.png").stat().st_size > 100


def test_the_front_matter_is_what_the_hub_reads(tmp_path) -> None:
    export(coloured(), tmp_path / "set", card=Card('"odd": licence'))
    data = DatasetCard.load(tmp_path / "set" / "README.md").data.to_dict()
    assert data == {
        "license": '"odd": licence',
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "federated-learning"],
        "size_categories": ["n<1K"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
        ],
    }


REAL = (
    "**Images of this set are, or started from, real images of the sites, "
    "and can still show them.**"
)
NOT_REAL = (
    "No image of this set is a real image or started from one. This is not a guarantee of privacy."
)
UNKNOWN = "Ask the makers of the set whether its images are, or started from, real images."


@pytest.mark.parametrize(
    ("method", "local", "claim", "origin"),
    [
        ("collabdm", {"images": 1, "start": "real"}, REAL, "made by 2 sites in one round with"),
        (
            "collabdm",
            {"images": 1, "start": "noise"},
            NOT_REAL,
            "made by 2 sites in one round with",
        ),
        ("collabdm", {"images": 1, "method": "random"}, REAL, "made by 2 sites in one round with"),
        ("coreset", {}, REAL, "made by 2 sites in one round with"),
        ("central", {"images": 1, "start": "real"}, REAL, "made from pooled data with"),
        ("rounds-means", {}, UNKNOWN, "made by 2 sites in several rounds with"),
        ("someone-elses", {}, UNKNOWN, "made by 2 sites in one round with"),
    ],
)
def test_the_card_claims_no_more_than_is_known(method, local, claim, origin) -> None:
    made = replace(coloured(local={"steps": 2, "batch": 4} | local), method=method)
    text = card_text(made, made.images, Card())
    assert f"\n{claim}" in text
    assert sum(other in text for other in (REAL, NOT_REAL, UNKNOWN)) == 1
    assert ("- synthetic" in text) == (claim is NOT_REAL)
    assert f"3 classes, {origin} collabdm (method {method})" in text


def test_results_of_another_set_are_refused(tmp_path) -> None:
    made = coloured()
    write_distilled(made, tmp_path / "set.safetensors")
    document: dict[str, Any] = {
        "set": "s",
        "plan": "another",
        "data": "digits",
        "seed": 0,
        "bytes": 1,
        "versions": {},
        "recipe": {},
        "compute": {"device": "cpu", "precision": "float32"},
        "scores": [{"what": "collabdm", "network": "ConvNet", "accuracies": [0.5], "images": 6}],
    }
    (tmp_path / "scores.json").write_text(json.dumps(document))
    command = ("export", tmp_path / "set.safetensors", "--results", tmp_path / "scores.json", "-o")
    refused = run(*command, tmp_path / "a")
    assert refused.code == 2
    assert "should be results of this set; found those of another plan" in refused.err
    (tmp_path / "scores.json").write_text(json.dumps(document | {"plan": made.plan.digest}))
    done(*command, tmp_path / "b")
    assert (
        "accuracy 50.0 % on digits test images (std 0.0, n = 1)"
        in (tmp_path / "b" / "README.md").read_text()
    )


def test_class_names_with_a_slash_become_folders_of_their_own(tmp_path) -> None:
    plan = fixed_plan(classes=("T-shirt/top", "..", "owl"))
    labels = torch.arange(3)
    made = DistilledSet(
        ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels, plan.classes),
        plan,
        {},
        "collabdm",
    )
    export(made, tmp_path / "set", "folder")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["-", "T-shirt-top", "owl"]
    clash = replace(made, images=ImageSet(made.images.images, labels, ("a/b", "a-b", "c")))
    with pytest.raises(DataError, match="distinct folders"):
        export(clash, tmp_path / "clash", "folder")


def test_a_folder_with_something_in_it_and_an_unknown_form_are_refused(tmp_path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="new or empty folder"):
        export(coloured(), tmp_path)
    with pytest.raises(PlanError, match="hub, folder, npz"):
        export(coloured(), tmp_path / "new", "zip")


# --- models --------------------------------------------------------------------------------------


def test_the_exported_file_gives_the_model_s_probabilities_in_its_own_runtime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny_model()
    session = onnxruntime.InferenceSession(onnx_bytes(model), providers=["CPUExecutionProvider"])
    for n in (1, 7):
        (found,) = session.run(None, {"images": pictures(n).numpy()})
        np.testing.assert_allclose(
            found, model.probabilities(pictures(n)).numpy(), rtol=1e-4, atol=1e-6
        )
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(model.classes)
    assert json.loads(told["mean"]) == list(model.image.mean)
    assert json.loads(told["provenance"]) == model.provenance


@pytest.mark.parametrize("opset", TARGETS)
def test_each_opset_gives_the_same_probabilities_in_a_file_for_its_runtime(opset) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    content = onnx_bytes(tiny_model(), opset)
    proto = onnx.load_from_string(content)
    assert [used.version for used in proto.opset_import if not used.domain] == [opset]
    assert proto.ir_version == TARGETS[opset].file_version
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": pictures(3).numpy()})
    np.testing.assert_allclose(
        found, tiny_model().probabilities(pictures(3)).numpy(), rtol=1e-4, atol=1e-6
    )


def test_an_unknown_opset_is_refused() -> None:
    with pytest.raises(PlanError, match="`opset` should be one of 18, 20, 21, 22; found 17"):
        onnx_bytes(tiny_model(), 17)


def test_train_and_predict_agree_with_the_exported_file(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    write_distilled(coloured(), tmp_path / "set.safetensors")
    done(
        "train",
        tmp_path / "set.safetensors",
        "--epochs",
        "3",
        "--onnx",
        "-o",
        tmp_path / "model.safetensors",
    )
    model = read_model(tmp_path / "model.safetensors")
    assert model.classes == ("cat", "dog", "owl")
    assert model.provenance["set"] == "set.safetensors"
    for i, pixels in enumerate(pictures(3)):
        draw(tmp_path / "shots" / f"{i}.png", pixels.permute(1, 2, 0).numpy())
    out = done("predict", tmp_path / "model.safetensors", tmp_path / "shots", "--top", "2").out
    rows = [row for row in cells(out) if row[0].endswith(".png")]
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": pictures(3).numpy()})
    assert [row[1].split()[0] for row in rows] == [model.classes[y] for y in found.argmax(1)]
    assert [row[1].count("%") for row in rows] == [2, 2, 2]


def test_predict_lists_all_damaged_pictures_or_leaves_them_out_with_the_names_in_place(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    write_model(model, tmp_path / "model.safetensors")
    for i, pixels in enumerate(pictures(4)):
        draw(tmp_path / "shots" / f"{i}.png", pixels.permute(1, 2, 0).numpy())
    for i in (0, 2):
        (tmp_path / "shots" / f"{i}.png").write_bytes(b"not a picture")

    refused = run("predict", "model.safetensors", "shots")
    assert refused.code == 2
    assert "2 cannot be read" in refused.err
    assert all(f"shots/{i}.png" in refused.err for i in (0, 2))

    rows = cells(done("predict", "model.safetensors", "shots", "--skip-unreadable").out)
    found = {row[0]: row[1].split()[0] for row in rows if row[0].endswith(".png")}
    best = model.probabilities(pictures(4)).argmax(1)
    assert found == {f"shots/{i}.png": model.classes[best[i]] for i in (1, 3)}


def test_a_model_is_exported_as_onnx_and_a_set_is_not(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    write_model(tiny_model(), tmp_path / "model.safetensors")
    done("export", tmp_path / "model.safetensors", "--form", "onnx", "-o", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": pictures(3).numpy()})
    np.testing.assert_allclose(
        found, tiny_model().probabilities(pictures(3)).numpy(), rtol=1e-4, atol=1e-6
    )
    write_distilled(coloured(), tmp_path / "set.safetensors")
    refused = run(
        "export", tmp_path / "set.safetensors", "--form", "onnx", "-o", tmp_path / "set.onnx"
    )
    assert refused.code == 2
    assert (
        "format should be collabdm/model; found 'collabdm/distilled': `collabdm train` makes"
        in " ".join(refused.err.split())
    )


def test_the_same_training_gives_the_same_model(tmp_path) -> None:
    write_distilled(coloured(2), tmp_path / "set.safetensors")
    for name in "ab":
        done(
            "train",
            tmp_path / "set.safetensors",
            "--epochs",
            "2",
            "--recipe",
            "strong",
            "-o",
            tmp_path / name,
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert set(state_tensors(read_model(tmp_path / "a").network())) == set(
        read_model(tmp_path / "a").weights
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "model", "empty"), "empty should contain pictures (.apng, .bmp, "),
        (("predict", "model", "set.safetensors"), "should be a whole image file"),
        (
            ("train", "set.safetensors", "-o", "set.safetensors"),
            "should differ from the other files of this command",
        ),
        (("train", "set.safetensors", "--network", "LeNet", "-o", "m"), "LeNet"),
        (
            ("export", "set.safetensors", "-o", "out", "--results", "set.safetensors"),
            "evaluate --json",
        ),
    ],
)
def test_bad_input_is_refused(tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_distilled(coloured(), tmp_path / "set.safetensors")
    if arguments[0] == "predict":
        done("train", "set.safetensors", "--epochs", "1", "-o", "model")
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err
