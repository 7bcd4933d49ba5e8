"""An audit from the command to the report: its files, its attacks, and how it resumes."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from command import run
from tiny import fixed_plan, method_plan, tiny_data, tiny_plan

from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.lab.audit.audit import Subject, audit
from collabdm.lab.audit.record import AuditRecord, read_record
from collabdm.lab.audit.settings import AuditSettings

SMALL = AuditSettings(
    members=4, shadows=3, epochs=1, canaries=2, small_class=2, iterations=3, restarts=2
)
DATA = tiny_data([12, 12, 13])


def audited(folder: Path, settings: AuditSettings = SMALL, **plan: object) -> AuditRecord:
    subject = Subject(tiny_plan(**plan), DATA, "tiny", "collabdm audit")
    return audit(subject, settings, folder)


def attacks(record: AuditRecord) -> set[tuple[str, str]]:
    return {(attack.released, attack.attack) for attack in record.attacks}


def test_every_release_of_every_round_is_attacked(tmp_path) -> None:
    record = audited(tmp_path)
    means = {"means", "means, whitened", "means, shadow rounds"}
    losses = {"nearest image", "loss", "loss, shadow rounds"}
    assert attacks(record) == {("contribution", name) for name in means | {"nearest image"}} | {
        ("set", name) for name in losses
    }
    for attack in record.attacks:
        assert (attack.members, attack.non_members) == (4 * 12, 4 * 12)
        assert attack.auc.low <= attack.auc.value <= attack.auc.high
    assert {len(canary.exposures) for canary in record.canaries} == {2}
    assert record.reconstruction is not None
    assert record.reconstruction.ratio == 3 * 128 / (2 * 64)


def test_an_audit_of_the_same_settings_gives_the_same_record(tmp_path) -> None:
    assert audited(tmp_path / "a") == audited(tmp_path / "b")


def test_a_round_without_images_or_shadows_has_fewer_attacks(tmp_path) -> None:
    settings = SMALL.model_copy(update={"shadows": 0, "canaries": 0, "small_class": 0})
    record = audited(tmp_path, settings, local={"method": "none"})
    means = {("contribution", "means"), ("contribution", "means, whitened")}
    assert attacks(record) == means | {("set", "nearest image"), ("set", "loss")}
    assert record.canaries == ()
    assert record.reconstruction is None


def test_a_method_without_means_is_attacked_by_its_images(tmp_path) -> None:
    plan = method_plan("localdm", sites=1)
    record = audit(Subject(plan, DATA, "tiny"), SMALL, tmp_path)
    assert record.reconstruction is None
    assert ("contribution", "nearest image") in attacks(record)
    assert ("contribution", "means") not in attacks(record)


def test_real_images_sent_as_they_are_betray_their_members(tmp_path) -> None:
    record = audited(tmp_path, local={"method": "random", "images": 4})
    (sent,) = (
        a for a in record.attacks if (a.released, a.attack) == ("contribution", "nearest image")
    )
    assert sent.auc.value == 1.0
    assert sent.tpr_at_01_percent.value == 1.0
    assert min(pair.distance for pair in record.pairs if pair.released == "contribution") == 0.0


def test_an_interrupted_audit_uses_the_files_that_exist(tmp_path) -> None:
    first = audited(tmp_path)
    kept = tmp_path / "rounds" / "1" / "scores.safetensors"
    changed = {
        name: torch.zeros_like(values)
        for name, values in safetensors.torch.load(kept.read_bytes()).items()
    }
    kept.write_bytes(safetensors.torch.save(changed))
    (tmp_path / "audit.json").unlink()
    assert audited(tmp_path) != first


def test_a_folder_of_another_audit_is_refused(tmp_path) -> None:
    audited(tmp_path)
    with pytest.raises(DocumentError, match="found another"):
        audited(tmp_path, SMALL.model_copy(update={"seed": 1}))


def test_too_few_images_are_named_by_class(tmp_path) -> None:
    with pytest.raises(DataError, match=r"found fewer of cat \(12\), dog \(12\), owl \(13\)"):
        audited(tmp_path, SMALL.model_copy(update={"members": 5}))
    assert not list(tmp_path.iterdir())


def test_plans_without_a_set_or_with_masks_are_refused(tmp_path) -> None:
    with pytest.raises(PlanError, match="returns a distilled set; found dense"):
        audit(Subject(method_plan("dense"), DATA, "tiny"), SMALL, tmp_path)

    masks = {"keys": {"a": "0" * 64, "b": "1" * 64}, "threshold": 2}
    names = {"site_names": ("a", "b"), "largest_class": 20, "local": {"method": "none"}}
    names["wire"] = "float32"
    with pytest.raises(PlanError, match="`masking` should be absent"):
        audit(Subject(fixed_plan(masking=masks, **names), DATA, "tiny"), SMALL, tmp_path)


def test_a_damaged_record_is_refused(tmp_path) -> None:
    assert read_record(tmp_path) is None
    audited(tmp_path)
    content = json.loads((tmp_path / "audit.json").read_text())
    content["attacks"][0]["auc"]["value"] = 2
    (tmp_path / "audit.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="repeat `collabdm audit`"):
        read_record(tmp_path)


def test_the_command_writes_a_table_a_picture_and_a_section_of_the_report(tmp_path) -> None:
    plan, folder = tmp_path / "plan.json", tmp_path / "audit"
    small = ("--ipc", 1, "--steps", 2, "--local-steps", 1, "--network", "ConvNet:width=8,depth=1")
    assert run("plan", "--data", "digits", "-o", plan, *small).code == 0

    sizes = ("--members", 5, "--shadows", 1, "--epochs", 1, "--iterations", 2)
    done = run("audit", plan, "--data", "digits", "-o", folder, *sizes, "--quiet")
    assert done.code == 0, done.err
    assert "means, whitened" in done.out
    assert "1.44 without a leak" in done.out
    assert (folder / "audit.png").read_bytes().startswith(b"\x89PNG")
    record = read_record(folder)
    assert record is not None
    assert record.command.endswith("--members 5 --shadows 1 --epochs 1 --iterations 2 -o audit")

    assert run("report", folder).code == 0
    page = (folder / "report.html").read_text()
    assert "<h2>Audit</h2>" in page
    assert "loss, shadow rounds" in page
    assert "data:image/png;base64" in page


def test_a_report_of_a_round_shows_the_audit_next_to_it(tmp_path) -> None:
    round_, small = tmp_path / "round", ("--epochs", 1, "--trials", 1, "--compare", "random")
    network = ("--network", "ConvNet:width=8,depth=1", "--steps", 1, "--local-steps", 1)
    options = ("--data", "digits", "--per-class", 4, "--test-per-class", 2, "--sites", 1)
    assert run("simulate", *options, *small, *network, "-o", round_).code == 0
    audited(tmp_path / "audit")
    for name in ("audit.json", "audit.png"):
        (round_ / name).write_bytes((tmp_path / "audit" / name).read_bytes())

    assert run("report", round_).code == 0
    page = (round_ / "report.html").read_text()
    assert "<h2>Audit</h2>" in page
    assert "<h2>Results</h2>" in page
