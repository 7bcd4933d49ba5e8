"""An exported set is uploaded to a server with the hub's interface, and loads from its files."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from command import Result, run
from hub import OWNER, TOKEN, Hub, hub
from tiny import CLASSES, tiny_plan

from collabdm.documents.outcome_files import write_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.images import ImageSet

Export = Callable[..., Result]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    plan = tiny_plan(images="uint8")
    labels = torch.arange(len(CLASSES)).repeat_interleave(plan.ipc)
    pixels = (torch.arange(len(labels) * 64) % 251).to(torch.uint8).view(-1, *plan.image.shape)
    images = ImageSet(pixels, labels, CLASSES)
    path = tmp_path / "set.safetensors"
    write_distilled(DistilledSet(images, plan, {"a": [2, 2, 2]}, plan.method), path)
    return path


@pytest.fixture
def export(made: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Run `collabdm export` on the set, with the server as the hub."""

    def export(address: str, *options: str, token: str = TOKEN) -> Result:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(made.parent / "none"))
        monkeypatch.setenv("HF_TOKEN", token)
        return run("export", made, "-o", made.parent / "out", *options)

    return export


def files_of(received: Hub, name: str) -> dict[str, bytes]:
    assert list(received.files) == [name]
    return received.files[name]


def test_the_folder_is_uploaded_whole_to_a_new_private_data_set(made: Path, export: Export) -> None:
    with hub() as received:
        ran = export(received.address, "--licence", "cc-by-4.0", "--push", f"{OWNER}/tiny")
        address = received.address

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == f"{address}/datasets/{OWNER}/tiny"
    assert received.visibility == {f"{OWNER}/tiny": "private"}

    files, folder = files_of(received, f"{OWNER}/tiny"), made.parent / "out"
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)): path.read_bytes() for path in written} == files

    card = files["README.md"].decode()
    assert card.startswith("---\n")
    assert all(part in card for part in ("license: cc-by-4.0", "configs:", "load_dataset("))
    table = pyarrow.parquet.read_table(io.BytesIO(files["data/train-00000-of-00001.parquet"]))
    assert table.num_rows == 6


def test_a_data_set_is_public_only_on_request(made: Path, export: Export) -> None:
    with hub() as received:
        assert export(received.address, "--push", f"{OWNER}/open", "--public").code == 0
    assert received.visibility == {f"{OWNER}/open": "public"}


@pytest.mark.parametrize(
    ("options", "token", "message"),
    [
        (("--push", "tiny"), TOKEN, "`--push` should be OWNER/NAME"),
        (("--push", f"{OWNER}/a b"), TOKEN, "`--push` should be OWNER/NAME"),
        (("--push", f"{OWNER}/tiny", "--form", "npz"), TOKEN, "`--push` needs the form hub"),
        (("--public",), TOKEN, "`--public` should come with `--push OWNER/NAME`"),
        (("--push", f"{OWNER}/tiny"), "", "found no login: run `hf auth login`, or set HF_TOKEN"),
        (("--push", f"{OWNER}/tiny"), "hf_wrong", "check the owner, and that the token may write"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_before_anything_is_written(
    made: Path, export: Export, options: tuple[str, ...], token: str, message: str
) -> None:
    with hub() as received:
        ran = export(received.address, *options, token=token)

    assert ran.code == 2
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert not (made.parent / "out").exists()
    assert received.files == {}


def test_without_a_connection_the_error_names_the_server(made: Path, export: Export) -> None:
    with hub() as received:
        address = received.address
    ran = export(address, "--push", f"{OWNER}/tiny")

    assert ran.code == 2
    assert f"{address} should answer; found no connection" in " ".join(ran.err.split())


def test_the_export_is_kept_if_the_owner_refuses(made: Path, export: Export) -> None:
    with hub() as received:
        ran = export(received.address, "--push", "somebody/tiny")

    assert ran.code == 2
    assert "answered 403: check the owner" in " ".join(ran.err.split())
    assert (made.parent / "out" / "README.md").exists()
