"""What a message holds: a plan and the sites that have answered; or a contribution; or why there is none.

A document is one opaque array of bytes: arrays travel in pieces, so that no process holds more of one than
it must. Whatever else comes is refused.
"""

from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from collabdm.errors import DocumentError

QUESTION = "query.contribute"


DOCUMENT, SAID = "document", "said"  # records


BYTES = "bytes"  # the one array of a document


@dataclass(frozen=True)
class Answer:
    """What a node sent: the bytes of a contribution, or a refusal, or that it has answered before."""

    site: str
    content: bytes | None = None
    refusal: str = ""


def plan_content(content: bytes, answered: list[str]) -> RecordDict:
    """The question: the bytes of a plan, and the names of the sites that need not answer."""
    return RecordDict({DOCUMENT: _record(content), SAID: ConfigRecord({"answered": answered})})


def read_question(message: Message) -> tuple[bytes, list[str]]:
    """The bytes of the plan, and who has answered. Raises DocumentError."""
    answered = _said(message.content).get("answered", [])
    return _document(message.content), [str(name) for name in answered] if isinstance(answered, list) else []


def answer_content(answer: Answer) -> RecordDict:
    """The records of an answer."""
    records: dict[str, Any] = {SAID: ConfigRecord({"site": answer.site, "refusal": answer.refusal})}
    if answer.content is not None:
        records[DOCUMENT] = _record(answer.content)
    return RecordDict(records)


def read_answer(message: Message, limit: int) -> Answer:
    """A node's answer. Raises DocumentError where it is none, or has more than `limit` bytes."""
    said = _said(message.content)
    site, refusal = said.get("site"), said.get("refusal")
    if not isinstance(site, str) or not isinstance(refusal, str):
        raise DocumentError("an answer should say its site; found none")
    if DOCUMENT not in message.content:
        return Answer(site, None, refusal)
    content = _document(message.content)
    if len(content) > limit:
        raise DocumentError(f"answer of {site!r:.70}: should have at most {limit:,} bytes; found {len(content):,}")
    return Answer(site, content)


def _record(content: bytes) -> ArrayRecord:
    return ArrayRecord({BYTES: Array(dtype="uint8", shape=(len(content),), stype="safetensors", data=content)})


def _document(content: RecordDict) -> bytes:
    record = content.get(DOCUMENT)
    if not isinstance(record, ArrayRecord) or list(record) != [BYTES]:
        raise DocumentError(f"a message should hold one document, `{DOCUMENT}`; found none")
    return record[BYTES].data


def _said(content: RecordDict) -> dict[str, Any]:
    record = content.get(SAID)
    return dict(record) if isinstance(record, ConfigRecord) else {}
