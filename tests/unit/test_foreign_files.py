"""Foreign files and texts: bombs, devices, nesting, doubled keys, control characters, large demands."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import done, picture_folder, run
from pictures import draw, pixels
from PIL import Image
from tiny import (
    GREY,
    fixed_contribution,
    fixed_distilled,
    fixed_plan,
    tiny_data,
    tiny_plan,
)

from collabdm.cli.console import PlainConsole, table
from collabdm.data.sources import load
from collabdm.documents import atomic_write as writing
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution_file import contribution_bytes, write_contribution
from collabdm.documents.json_text import MOST_LEVELS, load_json
from collabdm.documents.outcome_files import write_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import parse_plan, plan_bytes, write_plan
from collabdm.errors import (
    CollabDMError,
    DataError,
    DocumentError,
    OutputError,
    PlanError,
    printable,
)
from collabdm.export.card import Card, card_text
from collabdm.export.dataset import export
from collabdm.lab.reproduce.records import only_writer
from collabdm.matching.compiled_code import FOLDER_VARIABLE, use_private_folder
from collabdm.planning.limits import check_limits
from collabdm.planning.make import make_plan
from collabdm.planning.settings import read_toml
from collabdm.rounds.contributions import parse_contribution
from collabdm.rounds.inspect import describe_file
from collabdm.rounds.policy import Policy
from collabdm.rounds.preview import preview_contribution

RED = "\x1b[31m"
CONTROLS = ("\x1b", "\x07", "\x9b", "\x7f", "\u202e", "\u2028", "\ud800", "\r")


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))


# --- printable text ------------------------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS)
def test_control_characters_become_escapes(control) -> None:
    shown = printable(f"a{control}b\n", keep="\n")
    assert shown.startswith("a\\")
    assert shown.endswith("b\n")
    assert shown.encode()
    assert "\\n" in printable("a\nb")


def test_other_text_is_unchanged() -> None:
    text = "naïve 猫\u3000ネコ \u06a9\u200c\u0647 → ½ 🙂"
    assert printable(text) == text


def test_errors_are_printable_and_short() -> None:
    message = str(CollabDMError(f"{RED}x" + "y" * 10**7 + "\nsecond: do this" + "\nz" * 10**5))
    assert "\x1b" not in message
    assert len(message) < 10_000
    assert "\nsecond: do this\n" in message
    assert "9,998,006 characters left out" in message
    assert message.splitlines()[-1].endswith("more lines")


def test_a_message_names_the_first_of_many_faults() -> None:
    fields = json.loads(plan_bytes(tiny_plan())) | {f"key{i}{RED}": i for i in range(5000)}
    with pytest.raises(DocumentError) as error:
        parse_plan(json.dumps(fields).encode())
    message = str(error.value)
    assert "`key0\\x1b[31m` is not a setting" in message
    assert "… and 4,980 more faults" in message
    assert "\x1b" not in message


def test_the_console_prints_neither_controls_nor_markup() -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, width=200)
    console.print(f"a [/x] {RED} :smile: [red]b")
    console.print(table(f"t{RED}[/x]", ["class", f"c{RED}[/y]"], [["dog", f"{RED}\r[/z]"]]))
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()
    for text in ("[/x]", "[/y]", "[/z]", ":smile:", "[red]b", "\\x1b[31m"):
        assert text in out.getvalue()


def controlled_plan(**changes: Any) -> Plan:
    """A plan as an earlier version could make it."""
    return fixed_plan(classes=(f"{RED}cat", "dog/..\x07", "owl"), **changes)


def test_new_plans_have_printable_class_names_and_old_ones_are_read() -> None:
    with pytest.raises(PlanError, match=r"without control characters; found \\x1b\[31mcat"):
        make_plan((f"{RED}cat", "dog"), GREY)
    plan = controlled_plan()
    assert parse_plan(plan_bytes(plan)) == plan


def test_inspect_and_exports_of_an_old_set_have_no_controls(tmp_path) -> None:
    plan = controlled_plan()
    write_distilled(fixed_distilled(plan), tmp_path / "set.st")
    write_plan(plan, tmp_path / "plan.json")
    for name in ("set.st", "plan.json"):
        shown = done("inspect", tmp_path / name).out
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\\x1b[31mcat" in shown

    export(fixed_distilled(plan), tmp_path / "folder", "folder")
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {"-x1b[31mcat", "dog-..-x07", "owl"}
    card = card_text(fixed_distilled(plan), fixed_distilled(plan).images, Card(counts=True))
    assert "\x1b" not in card


# --- devices and nesting -------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path) -> Path:
    os.mkfifo(tmp_path / "fifo.json")
    return tmp_path / "fifo.json"


@pytest.mark.timeout(60)
def test_a_fifo_or_a_device_is_no_document(fifo, tmp_path) -> None:
    for path in (fifo, Path("/dev/zero")):
        for command in (
            ("inspect", path),
            ("evaluate", path, "--data", "digits"),
            ("plan", "--classes", "a,b", "--image-size", "1x8", "--config", path, "-o", "p.json"),
            ("plan", "--flows", path, "-o", "p.json"),
            ("report", path),
        ):
            result = run(*command)
            assert (result.code, result.err.count("error: ")) == (2, 1), (command, result)


def test_a_fifo_among_pictures_is_refused(tmp_path) -> None:
    picture_folder(tmp_path / "pictures", cat=1, dog=1)
    os.mkfifo(tmp_path / "pictures" / "cat" / "x.png")
    with pytest.raises(DataError, match=r"x\.png.*a FIFO, not a regular file"):
        load(tmp_path / "pictures")


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 900, 100_000])
def test_deep_nesting_is_refused_everywhere(levels, tmp_path) -> None:
    fields = json.loads(plan_bytes(fixed_plan()))
    text = json.dumps(fields)[:-1] + ', "options": {"a": ' + nested(levels) + "}}"
    with pytest.raises(DocumentError, match="levels of nesting"):
        parse_plan(text.encode())
    (tmp_path / "schema.json").write_text(nested(levels))
    assert "levels of nesting" in run("plan", "--flows", tmp_path / "schema.json", "-o", "p").err
    (tmp_path / "deep.toml").write_text(f"x = {nested(levels)}")
    with pytest.raises(PlanError, match="should be a readable TOML file"):
        read_toml(tmp_path / "deep.toml")


def test_a_number_of_thousands_of_digits_is_no_setting(tmp_path) -> None:
    (tmp_path / "long.toml").write_text("ipc = " + "1" * 5000)
    with pytest.raises(PlanError, match="should be a readable TOML file"):
        read_toml(tmp_path / "long.toml")


def test_a_key_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a key occurs twice"):
        load_json('{"a": {"b": 1, "b": 2}}')


def test_a_doubled_key_in_the_header_of_a_document_is_refused() -> None:
    plan = fixed_plan()
    content = contribution_bytes(fixed_contribution(plan))
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().rstrip()
    first = next(iter(set(json.loads(header)) - {"__metadata__"}))
    again = json.dumps({first: json.loads(header)[first]})[1:-1]
    doubled = f"{header[:-1]},{again}}}".encode()
    damaged = len(doubled).to_bytes(8, "little") + doubled + content[8 + length :]
    with pytest.raises(DocumentError, match="should be a whole safetensors file"):
        parse_contribution(damaged, plan)


# --- bombs ---------------------------------------------------------------------------------------


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"


@pytest.mark.parametrize("kind", ["postscript", "PCX"])
def test_a_picture_of_another_format_is_not_opened(kind, tmp_path) -> None:
    folder = picture_folder(tmp_path / "pictures", cat=1, dog=1)
    if kind == "postscript":
        (folder / "cat" / "1.png").write_bytes(POSTSCRIPT)
    else:
        Image.fromarray(pixels(0)).save(folder / "cat" / "1.png", format=kind)
    with pytest.raises(DataError, match=r"1\.png` should be a whole image file"):
        load(folder)


def header_of_png(width: int, height: int) -> bytes:
    """A PNG whose header alone is whole."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_huge_picture_is_refused_by_its_header(tmp_path) -> None:
    picture_folder(tmp_path / "pictures", cat=1, dog=1)
    (tmp_path / "pictures" / "cat" / "0.png").write_bytes(header_of_png(9000, 9000))
    with pytest.raises(DataError, match="9,000 x 9,000 pixels, more than"):
        load(tmp_path / "pictures", side=8)


def test_large_pictures_should_be_resized(tmp_path) -> None:
    for name in ("cat", "dog"):
        draw(tmp_path / "pictures" / name / "0.png", np.zeros((1100, 8, 3), np.uint8))
    with pytest.raises(DataError, match="at most 1024 pixels a side.*--resize"):
        load(tmp_path / "pictures")
    assert load(tmp_path / "pictures", side=8).shape == (3, 8, 8)


def write_npz(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def header_of_npy(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


LABELS, IMAGES = npy(np.array([0, 1])), npy(np.zeros((2, 8, 8), np.uint8))


def test_an_array_that_nobody_named_is_not_read(tmp_path) -> None:
    bomb = header_of_npy((2**45, 8, 8))
    path = write_npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS, bomb=bomb)
    assert len(load(path)) == 2


@pytest.mark.parametrize(
    ("members", "compression", "said"),
    [
        (
            {"images": header_of_npy((2**44, 8, 8)), "labels": LABELS},
            zipfile.ZIP_DEFLATED,
            "more than the file",
        ),
        (
            {"images": header_of_npy((2, 8, 8)), "labels": LABELS},
            zipfile.ZIP_DEFLATED,
            "cannot be read",
        ),
        ({"images": b"nothing", "labels": LABELS}, zipfile.ZIP_DEFLATED, "cannot be read"),
        (
            {"images": IMAGES, "labels": LABELS},
            zipfile.ZIP_LZMA,
            "stored, or compressed by DEFLATE",
        ),
        (
            {"images": IMAGES, "labels": npy(np.array(["a", "b"], object).astype("U1"))[:-4]},
            zipfile.ZIP_STORED,
            "cannot be read",
        ),
    ],
)
def test_a_wrong_array_is_refused_before_it_is_allocated(
    members, compression, said, tmp_path
) -> None:
    path = write_npz(tmp_path / "a.npz", compression, **members)
    with pytest.raises(DataError, match=f"`.*a.npz` should be an .npz of plain arrays.*{said}"):
        load(path)


@pytest.mark.parametrize("damage", ["content", "method", "encrypted"])
def test_a_damaged_archive_is_one_error(damage, tmp_path) -> None:
    path = write_npz(
        tmp_path / "a.npz",
        images=npy(np.random.default_rng(0).integers(0, 255, (2, 8, 8), np.uint8)),
        labels=LABELS,
    )
    content = bytearray(path.read_bytes())
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    if damage == "content":
        content[local + 60 : local + 90] = bytes(30)
    elif damage == "method":
        content[local + 8] = content[central + 10] = 99
    else:
        content[local + 6] |= 1
        content[central + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="should be an .npz of plain arrays"):
        load(path)


def test_a_small_parquet_file_with_large_rows_is_read_in_small_batches(tmp_path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels(0)).save(buffer, format="PNG")
    padded = buffer.getvalue() + bytes(2**22)
    rows = pa.table({"image": [padded] * 200, "label": [0, 1] * 100})
    pq.write_table(rows, tmp_path / "train.parquet", compression="zstd")
    assert (tmp_path / "train.parquet").stat().st_size < 2**20
    del rows
    before = pa.total_allocated_bytes()
    peak = pa.default_memory_pool().max_memory()
    assert len(load(tmp_path / "train.parquet")) == 200
    assert pa.default_memory_pool().max_memory() <= max(peak, before + 2**29)


def test_damaged_rows_of_parquet_are_one_error(tmp_path) -> None:
    values = [os.urandom(500) for _ in range(50)]
    pq.write_table(
        pa.table({"image": values, "label": list(range(50))}),
        tmp_path / "train.parquet",
        compression="none",
        use_dictionary=False,
    )
    content = bytearray((tmp_path / "train.parquet").read_bytes())
    content[4:200] = bytes(196)
    (tmp_path / "train.parquet").write_bytes(bytes(content))
    with pytest.raises(DataError, match="rows of .*train.parquet should be readable"):
        load(tmp_path / "train.parquet")


# --- what a plan may ask for ---------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"network": {"width": 1024, "depth": 6, "pooling": "none"}, "side": 128},
            ("the width of the embedding", "multiplications for one image"),
        ),
        (
            {"network": {"width": 1024, "depth": 1}, "side": 64, "sketch": 10**6},
            ("width times `sketch`",),
        ),
        ({"ipc": 10_000, "classes": 10_000}, ("bytes of the distilled images",)),
        ({"steps": 100_000, "classes": 10_000}, ("bytes of a contribution",)),
        ({"local": {"images": 10**6}, "classes": 1000}, ("bytes of a contribution",)),
    ],
)
def test_plans_that_no_machine_should_carry_out_are_refused(settings, said) -> None:
    side = settings.pop("side", 16)
    names = tuple(str(y) for y in range(settings.pop("classes", 3)))
    image = GREY.model_copy(update={"side": side})
    plan = fixed_plan(**{"sketch": None} | settings, classes=names, image=image)
    with pytest.raises(PlanError) as error:
        check_limits(plan)
    assert all(part in str(error.value) for part in said)
    with pytest.raises(PlanError, match="should be at most"):
        make_plan(names, image, **{"sketch": None} | settings)


def test_sites_are_drawn_for_a_limited_number_of_steps() -> None:
    names = tuple(f"s{i}" for i in range(300))
    with pytest.raises(
        ValueError, match="`steps` times `sites` of at most 10,000,000; found 30,000,000"
    ):
        fixed_plan(site_names=names, sites=300, fraction=0.5, steps=100_000)


@pytest.mark.timeout(60)
def test_the_preview_of_a_large_contribution_allocates_nothing() -> None:
    plan = tiny_plan(steps=100_000, wire="float16")
    policy = Policy(raw_images=True, smallest_class=1, largest_ratio=1e9)
    released = policy.release(plan, tiny_data((5, 2, 3)), "north")
    preview = preview_contribution(plan, released, "north")
    assert preview.statistics_bytes == 100_000 * 3 * 128 * 2
    assert preview.total_bytes > preview.statistics_bytes


def test_constants_that_give_no_finite_numbers_are_refused() -> None:
    for name, value in (("mean", 1e308), ("std", 5e-324)):
        with pytest.raises(ValueError, match=f"image.{name}|{name}"):
            fixed_plan(image=GREY.model_dump() | {name: (value,)})


# --- the program ---------------------------------------------------------------------------------


def program(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "collabdm", *map(str, words)],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        timeout=300,
        check=False,
    )


def test_the_posix_locale_without_utf_8_shows_everything(tmp_path) -> None:
    write_plan(controlled_plan(), tmp_path / "plän.json")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = program(
        "inspect",
        os.fsencode(tmp_path / "plän.json").decode("ascii", "surrogateescape"),
        **ascii_only,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_signals_during_the_import_leave_no_traceback(number, code) -> None:
    program = "import sys, collabdm.cli.start as s; print('ready', flush=True); s.start()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err
    assert process.returncode in (code, 2)  # 2: the help was already shown


def test_paths_with_markup_are_printed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("[").mkdir()
    result = done(
        "plan",
        "--classes",
        "a,b",
        "--image-size",
        "1x8",
        "--network",
        "ConvNet:width=8,depth=1",
        "-o",
        "[/x].json",
    )
    assert "[/x].json" in result.out


def test_temporary_files_of_killed_processes_are_removed(tmp_path, monkeypatch) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        "stale": f".out.bin.{dead.pid}.0.part",
        "alive": f".out.bin.{os.getpid()}.7.part",
        "fresh": f".out.bin.{dead.pid}.1.part",
        "other": f".else.bin.{dead.pid}.0.part",
        "foreign": ".out.bin.x.part",
    }
    for name in names.values():
        (tmp_path / name).write_bytes(b"part")
    old = time.time() - 2 * writing.STALE_SECONDS
    for kind in ("stale", "alive", "other", "foreign"):
        os.utime(tmp_path / names[kind], (old, old))
    atomic_write(tmp_path / "out.bin", b"whole")
    left = {path.name for path in tmp_path.iterdir()} - {"out.bin", "cache"}
    assert left == set(names.values()) - {names["stale"]}


def test_two_runs_do_not_compute_the_same_cells(tmp_path) -> None:
    lines = tmp_path / "grid.jsonl"
    with (
        only_writer(lines),
        pytest.raises(OutputError, match="one `collabdm reproduce` at a time"),
        only_writer(lines),
    ):
        pass
    with only_writer(lines):
        assert not lines.exists()


def test_compiled_code_is_kept_where_only_this_user_writes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path))
    chosen = {}
    for name, mode in (("new", None), ("own", 0o700), ("shared", 0o777)):
        monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
        monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / name))
        if mode is not None:
            (tmp_path / name / "compiled").mkdir(parents=True)
            (tmp_path / name / "compiled").chmod(mode)
        use_private_folder()
        chosen[name] = Path(os.environ[FOLDER_VARIABLE])
        assert chosen[name].stat().st_mode & 0o777 == 0o700
    assert chosen["new"] == tmp_path / "new" / "compiled"
    assert chosen["own"] == tmp_path / "own" / "compiled"
    assert tmp_path not in chosen["shared"].parents
    monkeypatch.setenv(FOLDER_VARIABLE, "mine")
    use_private_folder()
    assert os.environ[FOLDER_VARIABLE] == "mine"


# --- the card ------------------------------------------------------------------------------------


def test_the_card_names_sites_only_on_request() -> None:
    plan = fixed_plan(site_names=("north-hospital", "south-hospital"))
    distilled = fixed_distilled(plan)
    plain = card_text(distilled, distilled.images, Card())
    assert "hospital" not in plain
    assert "Without the names of the sites" in plain
    named = card_text(distilled, distilled.images, Card(counts=True))
    assert "north-hospital" in named


def test_a_contribution_with_a_foreign_name_is_refused_printably(tmp_path) -> None:
    plan = fixed_plan()
    odd = fixed_contribution(plan, site=f"{RED}north")
    write_contribution(odd, tmp_path / "odd.st")
    _, rows = describe_file(tmp_path / "odd.st")
    assert rows
    with pytest.raises(DocumentError) as error:
        parse_contribution((tmp_path / "odd.st").read_bytes(), plan)
    assert "\x1b" not in str(error.value)
