"""The three documents on disk: Plan as JSON, Contribution and DistilledSet as safetensors.

docs/format.md states the formats in MUST and MAY. No pickle is read or written. A file is written
beside its place and moved there when it is whole, so nobody ever sees half a file. A file is checked
before it is used: size first, then structure, values, and the plan it answers.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet
from collabdm.matching import State
from collabdm.methods import declared_parts
from collabdm.parts import check_parts, declared_bytes
from collabdm.planning import describe, most_bytes
from collabdm.protocol import (
    CONTRIBUTION_VERSION,
    DISTILLED_VERSION,
    PLAN_VERSION,
    Contribution,
    DistilledSet,
    DistilledSteps,
    Plan,
    check_contribution,
    check_contributions,
)
from collabdm.statistics import Statistics
from collabdm.weights import DistilledModel
from collabdm.whole import write_whole

HEADER_KEY = "collabdm"  # one metadata key: safetensors does not order several
PLAN_LIMIT = 4 * 2**20
DISTILLED_LIMIT = 2**32
HEADER_ALLOWANCE = 2**20

_PART = "parts."
_STATISTICS = ("steps", "classes", "codes", "batch_counts", "totals")


class DocumentHeader(BaseModel):
    """What every header begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str
    version: int
    classes: tuple[str, ...]
    versions: dict[str, str]


Header = TypeVar("Header", bound=DocumentHeader)


class ContributionHeader(DocumentHeader):
    """Header of a Contribution."""

    site: str
    plan_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DistilledHeader(DocumentHeader):
    """Header of a DistilledSet: the plan whole, and the images of each class that each site holds."""

    method: str
    plan: dict[str, Any]
    sites: dict[str, list[int]]


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a Plan as indented JSON, its digest beside its fields."""
    write_whole(Path(path), plan_bytes(plan))


def plan_bytes(plan: Plan) -> bytes:
    """The bytes of a Plan: the same on disk and on any wire."""
    document = {"format": "collabdm/plan", "version": PLAN_VERSION, "digest": plan.digest}
    document |= plan.model_dump(mode="json")
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_plan(path: Path | str) -> Plan:
    """Read a Plan. Raises DocumentError where it is not one, or was changed after it was made."""
    return parse_plan(read_limited(Path(path), PLAN_LIMIT), str(path))


def parse_plan(content: bytes, where: str = "plan") -> Plan:
    """A Plan from its bytes. Raises DocumentError."""
    try:
        document = json.loads(content.decode(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{where} should be a plan, JSON; found text that is not ({error})") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{where} should be a plan, a JSON object; found {type(document).__name__}")
    _check_format(where, document, "collabdm/plan", PLAN_VERSION)
    digest = document.pop("digest", None)
    del document["format"], document["version"]
    plan = plan_within(where, document)
    if digest != plan.digest:
        raise DocumentError(
            f"{where}: digest should be {plan.digest[:16]}…, that of its content; found {str(digest)[:16]}…: "
            "the plan was changed after it was made; ask its author for the original"
        )
    return plan


def write_contribution(contribution: Contribution, path: Path | str) -> None:
    """Write a Contribution as safetensors."""
    write_whole(Path(path), contribution_bytes(contribution))


def contribution_bytes(contribution: Contribution) -> bytes:
    """The bytes of a Contribution: the same on disk and on any wire."""
    s = contribution.statistics
    tensors = {f"statistics.{name}": getattr(s, name) for name in _STATISTICS}
    if s.scales is not None:
        tensors["statistics.scales"] = s.scales
    tensors |= {"local.images": contribution.images.images, "local.labels": contribution.images.labels}
    tensors |= {f"{_PART}{name}": part for name, part in contribution.parts.items()}
    header = ContributionHeader(
        format="collabdm/contribution",
        version=CONTRIBUTION_VERSION,
        classes=contribution.images.classes,
        versions=contribution.versions,
        site=contribution.site,
        plan_digest=contribution.plan_digest,
    )
    return encode_document(tensors, header)


def read_contribution(path: Path | str, plan: Plan) -> Contribution:
    """Read and check one site's answer to `plan`. Raises DocumentError."""
    return parse_contribution(read_limited(Path(path), contribution_limit(plan)), plan, str(path))


def parse_contribution(content: bytes, plan: Plan, where: str = "contribution") -> Contribution:
    """A Contribution from its bytes, checked against `plan`. Raises DocumentError."""
    header, tensors = decode_document(content, where, ContributionHeader, "collabdm/contribution", CONTRIBUTION_VERSION)
    try:
        contribution = _contribution(header, tensors)
        check_contribution(plan, contribution)
        check_parts(declared_parts(plan), contribution.parts, f"contribution of {contribution.site!r}")
    except (DocumentError, DataError) as error:
        raise DocumentError(f"{where}: {error}") from error
    return contribution


class ContributionFiles(Mapping[str, Contribution]):
    """The contributions of a round, by site, on disk: each is read when it is asked for, and none is kept.

    All are read and checked once at the start. Raises DocumentError where one does not answer the plan, or
    where two are of one site.
    """

    def __init__(self, plan: Plan, paths: Iterable[Path]) -> None:
        self._plan = plan
        found = [(read_contribution(path, plan).site, path) for path in paths]
        check_contributions(plan, [site for site, _ in found])
        self._paths = dict(sorted(found))

    def __getitem__(self, site: str) -> Contribution:
        contribution = read_contribution(self._paths[site], self._plan)
        if contribution.site != site:
            raise DocumentError(f"{self._paths[site]} should be of {site!r}; found {contribution.site!r}: it changed")
        return contribution

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> dict[str, Path]:
        """Where each site's contribution is, in the order of the names."""
        return dict(self._paths)


def contribution_limit(plan: Plan) -> int:
    """The most bytes that an answer to the plan can have."""
    return most_bytes(plan) + declared_bytes(declared_parts(plan)) + HEADER_ALLOWANCE


def what_made(outcome: DistilledSet | DistilledSteps | DistilledModel) -> dict[str, Any]:
    """The fields of a header that say of any outcome where it comes from."""
    plan = outcome.plan.model_dump(mode="json")
    return {"versions": outcome.versions, "method": outcome.method, "plan": plan, "sites": outcome.sites}


def check_site_counts(where: str, header: DistilledHeader, plan: Plan) -> None:
    """Refuse counts of sites that are not one for each class. Raises DocumentError."""
    if any(len(held) != len(plan.classes) or min(held) < 0 for held in header.sites.values()):
        raise DocumentError(f"{where}: each site should have {len(plan.classes)} counts, none negative")


def write_distilled(distilled: DistilledSet, path: Path | str) -> None:
    """Write a DistilledSet as safetensors."""
    header = DistilledHeader(
        format="collabdm/distilled",
        version=DISTILLED_VERSION,
        classes=distilled.images.classes,
        **what_made(distilled),
    )
    tensors = {"images": distilled.images.images, "labels": distilled.images.labels}
    write_whole(Path(path), encode_document(tensors, header))


def read_distilled(path: Path | str) -> DistilledSet:
    """Read a DistilledSet. Raises DocumentError where it is not one."""
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(content, where, DistilledHeader, "collabdm/distilled", DISTILLED_VERSION)
    plan = plan_within(where, header.plan)
    expect_names(where, tensors, {"images", "labels"})
    try:
        images = ImageSet(tensors["images"], tensors["labels"], header.classes)
    except DataError as error:
        raise DocumentError(f"{where}: {error}") from error
    if str(images.images.dtype) != f"torch.{plan.images}":
        raise DocumentError(f"{where}: images should be {plan.images}; found {images.images.dtype}")
    if bool((images.labels.diff() < 0).any()):
        raise DocumentError(f"{where}: labels should ascend")
    if header.classes != plan.classes or images.shape != plan.image.shape:
        raise DocumentError(f"{where}: images should be of the plan's classes and shape {plan.image.shape}")
    counts = set(images.counts().tolist())
    if counts == {0} or (plan.options is None and not counts <= {0, plan.ipc}):
        raise DocumentError(f"{where}: there should be {plan.ipc} images of a class; found {sorted(counts)}")
    check_site_counts(where, header, plan)
    return DistilledSet(images, plan, header.sites, header.method, header.versions)


def write_state(state: State, identity: str, path: Path) -> None:
    """Keep a run's state, under the identity of what is run, to resume from."""
    tensors = {"images": state.images.cpu()} | {f"optimiser.{k}": v.cpu() for k, v in state.optimiser.items()}
    header = json.dumps({"identity": identity, "done": state.done})
    write_whole(path, safetensors.torch.save(_contiguous(tensors), {HEADER_KEY: header}))


def read_state(path: Path, identity: str) -> State | None:
    """The kept state of the same run; None where there is none, or of another run."""
    prefix = "optimiser."
    try:
        content = path.read_bytes()
        header = json.loads(_metadata(content)[HEADER_KEY])
        tensors = safetensors.torch.load(content)
        state = State(header["done"], tensors.pop("images"))
        same = header["identity"] == identity
    except (OSError, AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None
    state.optimiser = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return state if same else None


def _contribution(header: ContributionHeader, tensors: dict[str, Tensor]) -> Contribution:
    names = {f"statistics.{name}" for name in _STATISTICS} | {"local.images", "local.labels"}
    scales = tensors.get("statistics.scales")
    parts = {name.removeprefix(_PART): tensor for name, tensor in tensors.items() if name.startswith(_PART)}
    optional = {"statistics.scales", *(f"{_PART}{name}" for name in parts)}
    expect_names(f"contribution of {header.site!r}", tensors, names | (optional & set(tensors)))
    for name in ("statistics.steps", "statistics.classes", "statistics.batch_counts", "statistics.totals"):
        if tensors[name].dtype != torch.int64 or tensors[name].ndim != 1:
            raise DocumentError(f"`{name}` should be int64 of one dimension; found {tensors[name].dtype}")
    statistics = Statistics(**{name: tensors[f"statistics.{name}"] for name in _STATISTICS}, scales=scales)
    labels = tensors["local.labels"]
    if labels.dtype != torch.int64 or labels.ndim != 1 or bool((labels.diff() < 0).any()):
        raise DocumentError("`local.labels` should be int64 of one dimension, in ascending order")
    images = ImageSet(tensors["local.images"], labels, header.classes)
    return Contribution(header.site, header.plan_digest, statistics, images, header.versions, parts)


def encode_document(tensors: dict[str, Tensor], header: DocumentHeader) -> bytes:
    """Safetensors bytes of a document: its tensors, and its header as the one metadata text."""
    return safetensors.torch.save(_contiguous(tensors), {HEADER_KEY: header.model_dump_json()})


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors wants them: each in order and in memory of its own; copied only where it is not."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        own = whole and all(tensor.data_ptr() != other.data_ptr() for other in found.values())
        found[name] = tensor if own else tensor.clone(memory_format=torch.contiguous_format)
    return found


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes (8 bytes of length, then JSON)."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def decode_document(
    content: bytes, where: str, model: type[Header], kind: str, version: int
) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors of a document from its bytes. Raises DocumentError."""
    try:
        tensors = safetensors.torch.load(content)
        text = json.loads(_metadata(content)[HEADER_KEY], object_pairs_hook=_distinct)
    except (KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise DocumentError(
            f"{where} should be a whole safetensors file with a `{HEADER_KEY}` header; found one that is "
            f"damaged, cut off or of another kind ({error}): ask for it again"
        ) from error
    _check_format(where, text, kind, version)
    try:
        return model.model_validate(text), tensors
    except ValidationError as error:
        raise DocumentError(f"{where}: header: {describe(error)}") from error


def format_of(path: Path) -> str:
    """The kind of document that a safetensors file says it is; empty where it says nothing."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return str(json.loads((file.metadata() or {})[HEADER_KEY])["format"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError):
        return ""


def _check_format(where: str, document: Any, kind: str, version: int) -> None:
    found = document.get("format") if isinstance(document, dict) else None
    if found != kind:
        raise DocumentError(f"{where}: format should be {kind}; found {found!r}")
    if document.get("version") != version or isinstance(document.get("version"), bool):
        raise DocumentError(
            f"{where}: version should be {version}; found {document.get('version')!r}: "
            "it was made by another version of collabdm; use the same on both sides"
        )


def plan_within(where: str, document: dict[str, Any]) -> Plan:
    """A Plan that stands in another document. Raises DocumentError."""
    try:
        return Plan.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise DocumentError(f"{where}: {describe(error)}") from error


def expect_names(where: str, tensors: dict[str, Tensor], names: set[str]) -> None:
    """Refuse a document with other tensors than those named. Raises DocumentError."""
    if set(tensors) != names:
        missing, unknown = sorted(names - set(tensors)), sorted(set(tensors) - names)
        raise DocumentError(f"{where}: parts should be {sorted(names)}; missing {missing}, unknown {unknown}")


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file, unless they are more than `limit`. Raises DocumentError."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise DocumentError(f"{path} should have at most {limit:,} bytes; found {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
