"""Write and read the messages of a round: a plan, and a site's contribution or refusal.

    server -> node     the bytes of the plan, and the names of the sites that have contributed
    node -> server     the site's name, and the bytes of its contribution or a reason for refusing

If sites drop out of a round with masks, a second question asks the others for their unmaskings:

    server -> node     the bytes of the plan, and the names of the missing sites
    node -> server     the site's name, and the bytes of its unmasking or a reason for refusing

A document is a single opaque array of bytes, which Flower transports in pieces, so that no process
keeps more copies than necessary. A message with a different structure is rejected.
"""

from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from collabdm.errors import DocumentError

QUESTION = "query.contribute"
UNMASK_QUESTION = "query.unmask"
DOCUMENT, HEADER = "document", "said"  # the names of the records
BYTES = "bytes"  # the name of the only array of a document


@dataclass(frozen=True)
class Answer:
    """A node's answer: a document, a refusal, or neither if the site has answered before.

    Attributes:
        site: the site's name; empty if the node's configuration has no valid name.
        content: the bytes of a contribution, or of an unmasking.
        refusal: the reason for refusing.
    """

    site: str
    content: bytes | None = None
    refusal: str = ""


def plan_content(content: bytes, answered: list[str]) -> RecordDict:
    """Write the server's question: the bytes of a plan, and the sites that need not answer."""
    return RecordDict({DOCUMENT: _record(content), HEADER: ConfigRecord({"answered": answered})})


def read_question(message: Message) -> tuple[bytes, list[str]]:
    """Read the server's question: the bytes of the plan, and the sites that have contributed.

    Raises:
        DocumentError: the message does not contain a plan.
    """
    return _document(message.content), _names(message.content, "answered")


def missing_content(content: bytes, missing: list[str]) -> RecordDict:
    """Write the server's second question: the bytes of a plan, and the missing sites."""
    return RecordDict({DOCUMENT: _record(content), HEADER: ConfigRecord({"missing": missing})})


def read_missing_question(message: Message) -> tuple[bytes, list[str]]:
    """Read the server's second question: the bytes of the plan, and the missing sites.

    Raises:
        DocumentError: the message does not contain a plan.
    """
    return _document(message.content), _names(message.content, "missing")


def answer_content(answer: Answer) -> RecordDict:
    """Write the records of an answer."""
    header = ConfigRecord({"site": answer.site, "refusal": answer.refusal})
    records: dict[str, Any] = {HEADER: header}
    if answer.content is not None:
        records[DOCUMENT] = _record(answer.content)
    return RecordDict(records)


def read_answer(message: Message, limit: int) -> Answer:
    """Read a node's answer.

    Args:
        message: the node's message.
        limit: the largest number of bytes that the document may have.

    Returns:
        The answer; its document has not been checked.

    Raises:
        DocumentError: the message is not an answer, or its document is too large.
    """
    header = _header(message.content)
    site, refusal = header.get("site"), header.get("refusal")
    if not isinstance(site, str) or not isinstance(refusal, str):
        raise DocumentError("an answer should contain the name of its site; found none")
    if DOCUMENT not in message.content:
        return Answer(site, None, refusal)

    content = _document(message.content)
    if len(content) > limit:
        raise DocumentError(
            f"the answer of {site!r:.70} should have at most {limit:,} bytes; "
            f"found {len(content):,}"
        )
    return Answer(site, content)


def _record(content: bytes) -> ArrayRecord:
    array = Array(dtype="uint8", shape=(len(content),), stype="safetensors", data=content)
    return ArrayRecord({BYTES: array})


def _document(content: RecordDict) -> bytes:
    record = content.get(DOCUMENT)
    if not isinstance(record, ArrayRecord) or list(record) != [BYTES]:
        raise DocumentError(f"a message should contain one document, `{DOCUMENT}`; found none")
    return record[BYTES].data


def _names(content: RecordDict, key: str) -> list[str]:
    names = _header(content).get(key, [])
    return [str(name) for name in names] if isinstance(names, list) else []


def _header(content: RecordDict) -> dict[str, Any]:
    record = content.get(HEADER)
    return dict(record) if isinstance(record, ConfigRecord) else {}
