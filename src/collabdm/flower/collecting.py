"""Collect contributions at the server: ask all nodes, store the answers, report missing sites.

Every node is asked when it appears, and again if its program fails, at most `ATTEMPTS` times in
all. Its answer is checked like a file, and a valid contribution is written to disk.

    the collection ends  when every site has answered or failed, or at the plan's deadline
    the round is valid   if at least `collection.quorum` sites have contributed

The deadline is `collection.deadline` seconds after the start.

The folder contains the whole state: plan.json, contributions/SITE.safetensors, and the result,
collection.json. A server that was stopped and is started again asks only the missing sites. If a
site answers twice, its first contribution counts. An answer is dropped if its site is not in the
plan, is bound to a different node, or was declared missing in a round with masks (`unmasking`).
Documents that have been written are not kept in memory.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import read_limited
from collabdm.documents.plan import Collection, Plan
from collabdm.documents.plan_file import plan_bytes, read_plan, write_plan
from collabdm.errors import CollabDMError, DocumentError, printable
from collabdm.flower.wire import QUESTION, Answer, plan_content, read_answer
from collabdm.rounds.contributions import contribution_limit
from collabdm.rounds.masked import answering_site

logger = logging.getLogger("flwr.collabdm")

ASKED_AT_ONCE = 64  # messages in one request
PULLED_AT_ONCE = 4  # answers in memory at once
ATTEMPTS = 3  # how often a node whose program fails is asked
GRACE = 60.0  # seconds that a message is valid beyond the deadline
PAUSE = 0.5  # seconds between two requests for answers
LONGEST_NAME, LONGEST_REFUSAL = 64, 200  # the most characters that are recorded

Item = TypeVar("Item")
CollectionState = Literal["complete", "enough", "too few"]


class CollectionError(CollabDMError):
    """Too few sites have contributed."""


@dataclass(frozen=True)
class Clock:
    """A function for the time, in seconds from any origin, and a function that waits."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True)
class Collected:
    """The result of a collection.

    Attributes:
        plan: the digest of the plan.
        state: whether all sites, a quorum, or too few sites have contributed.
        came: the sites that have contributed.
        nodes: the node from which each contribution of this run came, by site.
        refused: the reason why a site did not contribute, by site.
        missing: the sites without a contribution, or their number if the plan names no sites.
        notes: all other events of interest, as sentences.
    """

    plan: str
    state: CollectionState
    came: tuple[str, ...]
    nodes: dict[str, int]
    refused: dict[str, str]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.came) or "none"
        lines = [f"collection {self.state}: {len(self.came)} sites contributed ({names})"]
        if self.missing:
            lines.append(f"missing: {', '.join(self.missing)}")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class Request:
    """What the nodes are asked for.

    Attributes:
        question: the type of the message.
        content: writes the message, given the sites that have answered.
        expected: how many sites should answer.
        excluded: the sites that must not answer.
        limit: the largest number of bytes of an answer.
        site_of: checks a document, and returns the name of its site; raises DocumentError.
        path: where the document of a site is stored.
        verb: what a site does that answers, for notes.
    """

    question: str
    content: Callable[[list[str]], RecordDict]
    expected: int
    excluded: frozenset[str]
    limit: int
    site_of: Callable[[bytes], str]
    path: Callable[[str], Path]
    verb: str


@dataclass
class Round:
    """The state of a running collection."""

    plan: Plan
    request: Request
    bound: Mapping[str, int]
    came: set[str] = field(default_factory=set)
    nodes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)  # message: node
    asked: set[int] = field(default_factory=set)
    failures: Counter[int] = field(default_factory=Counter)

    def label(self, node: int) -> str:
        """Name a node, and its site if a site is bound to it."""
        sites = [site for site, bound_node in self.bound.items() if bound_node == node]
        return f"node {node}" + "".join(f", {site}" for site in sites)

    def objection(self, site: str, node: int) -> str:
        """State why a node cannot answer for a site; empty if it can."""
        if self.plan.site_names is not None and site not in self.plan.site_names:
            return "which is not a site of the plan"
        if site in self.request.excluded:
            return "which was declared missing"
        if site in self.bound and self.bound[site] != node:
            return f"whose node is {self.bound[site]}"
        return ""

    def note(self, text: str) -> None:
        """Log an event, and keep it for the result."""
        text = printable(text)
        logger.warning("%s", text)
        self.notes.append(text)

    @property
    def settled(self) -> bool:
        """Whether all sites have answered, or no further answer can be expected."""
        if len(self.came) >= self.request.expected:
            return True
        given_up = sum(count >= ATTEMPTS for count in self.failures.values())
        answers = len(self.came) + len(self.refused) + given_up
        return not self.waiting and answers >= self.request.expected


def collect(
    plan: Plan,
    folder: Path,
    grid: Grid,
    clock: Clock,
    bound: Mapping[str, int] | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Collected:
    """Collect the contributions to a plan into a folder, or continue a collection.

    Args:
        plan: the plan.
        folder: the folder of the round; it is empty or belongs to the same plan.
        grid: Flower's connection to the nodes.
        clock: the clock that measures the deadline.
        bound: by site, the only node that may answer for it; other sites may answer from any node.
        excluded: the sites that were declared missing.

    Returns:
        The result, which is also written to collection.json.

    Raises:
        DocumentError: the folder belongs to a different plan.
    """
    _claim(plan, folder)
    request = Request(
        question=QUESTION,
        content=partial(plan_content, plan_bytes(plan)),
        expected=plan.sites - len(excluded),
        excluded=excluded,
        limit=contribution_limit(plan),
        site_of=lambda content: answering_site(content, plan),
        path=partial(contribution_path, folder),
        verb="contribute",
    )
    stored = set(stored_contributions(plan, folder)) - excluded
    round_ = Round(plan, request, bound or {}, came=stored)
    gather(round_, grid, clock)

    collected = _result(round_)
    write_result(collected, folder)
    return collected


def gather(round_: Round, grid: Grid, clock: Clock) -> None:
    """Ask all nodes and store their answers, until the plan's deadline or all have answered."""
    end = clock.now() + (round_.plan.collection or Collection()).deadline

    while not round_.settled and (left := end - clock.now()) > 0:
        _ask(round_, grid, left)
        for messages in _pieces(list(round_.waiting), PULLED_AT_ONCE):
            for reply in grid.pull_messages(messages):
                _receive(round_, reply)
        if not round_.settled:
            clock.sleep(min(PAUSE, left))


def write_result(collected: Collected, folder: Path) -> None:
    """Write the result of a collection to collection.json."""
    content = json.dumps(asdict(collected), indent=2) + "\n"
    atomic_write(folder / "collection.json", content.encode())


def stored_contributions(plan: Plan, folder: Path) -> dict[str, Path]:
    """Find the valid contributions to a plan in the folder of its round, by site."""
    paths = {}
    for path in sorted((folder / "contributions").glob("*.safetensors")):
        try:
            content = read_limited(path, contribution_limit(plan))
            site = answering_site(content, plan, str(path))
        except DocumentError as error:
            logger.warning("%s; the site is asked again", error)
            continue
        if path == contribution_path(folder, site):
            paths[site] = path
    return paths


def contribution_path(folder: Path, site: str) -> Path:
    """Return the path of a site's contribution in the folder of a round."""
    return folder / "contributions" / f"{site}.safetensors"


def _claim(plan: Plan, folder: Path) -> None:
    """Write the plan into a folder; raises DocumentError if the folder has a different plan."""
    path = folder / "plan.json"
    if path.exists() and (digest := read_plan(path).digest) != plan.digest:
        raise DocumentError(
            f"{folder} should be empty or contain a round of plan {plan.digest[:16]}…; "
            f"found one of {digest[:16]}…: choose another folder"
        )
    write_plan(plan, path)


def _ask(round_: Round, grid: Grid, left: float) -> None:
    """Send the plan to every node that has not been asked; `left` seconds remain."""
    new = sorted(set(grid.get_node_ids()) - round_.asked)
    question = round_.request.question
    content = round_.request.content(sorted(round_.came))

    for nodes in _pieces(new, ASKED_AT_ONCE):
        messages = [Message(content, node, question, ttl=left + GRACE) for node in nodes]
        for node, identity in zip(nodes, grid.push_messages(messages), strict=True):
            if identity:  # empty: Flower did not accept the message; it is sent again
                round_.waiting[identity] = node
                round_.asked.add(node)


def _receive(round_: Round, reply: Message) -> None:
    """Process one message from a node."""
    node = round_.waiting.pop(reply.metadata.reply_to_message_id, None)
    if node is None:
        round_.note("an answer to no question arrived: it is dropped")
        return
    if not reply.has_error():
        _store(round_, reply, node)
        return

    round_.failures[node] += 1
    failure = f"{round_.label(node)} failed, Flower's code {reply.error.code}"
    if round_.failures[node] < ATTEMPTS:
        round_.asked.discard(node)
        failure += ": it is asked again"
    round_.note(failure)


def _store(round_: Round, reply: Message, node: int) -> None:
    """Write the document that a node's answer contains, or note why there is none."""
    site = f"node {node}"
    try:
        answer = read_answer(reply, round_.request.limit)
        site = answer.site[:LONGEST_NAME]
        if site and (objection := round_.objection(site, node)):
            round_.note(
                f"{round_.label(node)} answers as {site!r}, {objection}: its answer is dropped"
            )
            return
        content = _checked_content(round_.request, answer)
    except DocumentError as error:
        round_.note(f"{site or 'a site without a name'} did not {round_.request.verb}: {error}")
        if site not in round_.came:
            round_.refused[site] = str(error)
        return

    if content is None:
        return
    if site in round_.came:
        _note_second_answer(round_, site, node, content)
        return

    atomic_write(round_.request.path(site), content, private=True)
    round_.came.add(site)
    round_.nodes[site] = node
    round_.refused.pop(site, None)
    count = f"{len(round_.came)} of {round_.request.expected}"
    logger.info("%s sent %s bytes; %s sites", site, f"{len(content):,}", count)


def _checked_content(request: Request, answer: Answer) -> bytes | None:
    """Check an answer, and return its document; None if the site has answered before.

    Raises:
        DocumentError: the site refuses, or its document is not valid.
    """
    if answer.content is None:
        if answer.refusal:
            raise DocumentError(answer.refusal[:LONGEST_REFUSAL])
        return None

    site = request.site_of(answer.content)
    if site != answer.site:
        raise DocumentError(
            f"the document should be of {answer.site[:LONGEST_NAME]!r}; found one of {site!r}"
        )
    return answer.content


def _note_second_answer(round_: Round, site: str, node: int, content: bytes) -> None:
    """Record that a site has answered again, perhaps from another node."""
    first = round_.nodes.get(site, node)
    who = f"{site} answered twice"
    if first != node:
        who = f"two nodes answer as {site!r}, {first} and then {node}"

    same = round_.request.path(site).read_bytes() == content
    difference = "with the same contribution" if same else "with different contributions"
    round_.note(f"{who}, {difference}: the first counts")


def _result(round_: Round) -> Collected:
    """Summarise a collection from its final state."""
    plan, count = round_.plan, len(round_.came)
    quorum = (plan.collection or Collection()).quorum
    if plan.masking is not None:
        quorum = max(quorum, plan.masking.threshold)
    state: CollectionState = "enough" if count >= quorum else "too few"
    if count >= plan.sites:
        state = "complete"

    missing = tuple(name for name in plan.site_names or () if name not in round_.came)
    if plan.site_names is None and count < plan.sites:
        missing = (f"{plan.sites - count} of {plan.sites} sites, which the plan does not name",)

    return Collected(
        plan=plan.digest,
        state=state,
        came=tuple(sorted(round_.came)),
        nodes=round_.nodes,
        refused=round_.refused,
        missing=missing,
        notes=tuple(round_.notes),
    )


def _pieces(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
