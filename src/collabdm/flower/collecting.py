"""What the server does while the answers come: ask every node, keep every file, know who is missing.

    every node that appears is asked once;  an answer is checked as a file is, and written as it comes
    it ends  when every site of the plan has answered, or when `collection.deadline` seconds are over
    it counts  when `collection.quorum` sites have contributed

The folder is the state: plan.json, contributions/SITE.safetensors, and collection.json, how it ended. A
server that was stopped, or is started again later, asks for the sites that are missing. Of a site that
answers twice, the first answer stays. A node that says the name of no site of the plan, or of one that is bound to
another node, answers for nobody. In memory are names, never a contribution that has been written.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.plan import Collection, Plan
from collabdm.documents.plan_file import plan_bytes, read_plan, write_plan
from collabdm.errors import CollabDMError, DocumentError
from collabdm.flower.wire import QUESTION, plan_content, read_answer
from collabdm.rounds.contributions import contribution_limit, parse_contribution, read_contribution

logger = logging.getLogger("flwr.collabdm")


ASKED_AT_ONCE = 64  # messages in one request


PULLED_AT_ONCE = 4  # answers in memory at once


ATTEMPTS = 3  # at a node whose program was killed


GRACE = 60.0  # seconds that a message lives beyond the deadline


PAUSE = 0.5  # seconds between two looks


Item = TypeVar("Item")


CollectionState = Literal["complete", "enough", "too few"]


class CollectionError(CollabDMError):
    """Too few sites have contributed."""


@dataclass(frozen=True)
class Clock:
    """Seconds from any beginning, and a way to wait."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True)
class Collected:
    """How a collection ended: who came, who would not and why, who is missing, and what else was seen.

    `nodes` are those from which the contributions of this run came, by site.
    """

    plan: str
    state: CollectionState
    came: tuple[str, ...]
    nodes: dict[str, int]
    refused: dict[str, str]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"collection {self.state}: {len(self.came)} sites came ({', '.join(self.came) or 'none'})"]
        lines += [f"missing: {', '.join(self.missing)}"] if self.missing else []
        lines += [f"{site or 'a site without a name'} did not contribute: {why}" for site, why in self.refused.items()]
        return "\n".join([*lines, *self.notes])


@dataclass
class _Round:
    """What is known while it runs."""

    plan: Plan
    folder: Path
    bound: Mapping[str, int]
    came: set[str] = field(default_factory=set)
    nodes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)  # message: node
    asked: set[int] = field(default_factory=set)
    failures: Counter[int] = field(default_factory=Counter)

    def path(self, site: str) -> Path:
        return contribution_path(self.folder, site)

    def label(self, node: int) -> str:
        """A node, by its site too where one is bound to it."""
        sites = [site for site, theirs in self.bound.items() if theirs == node]
        return f"node {node}" + "".join(f", {site}" for site in sites)

    def stranger(self, site: str, node: int) -> str:
        """Why a node cannot answer for a site; empty where it can."""
        if self.plan.site_names is not None and site not in self.plan.site_names:
            return "whom the plan does not name"
        if site in self.bound and self.bound[site] != node:
            return f"whose node is {self.bound[site]}"
        return ""

    def note(self, text: str) -> None:
        logger.warning(text)
        self.notes.append(text)

    @property
    def settled(self) -> bool:
        """Every site has contributed, or all that were asked have said what they will ever say."""
        if len(self.came) >= self.plan.sites:
            return True
        given_up = sum(count >= ATTEMPTS for count in self.failures.values())
        return not self.waiting and len(self.came) + len(self.refused) + given_up >= self.plan.sites


def collect(plan: Plan, folder: Path, grid: Grid, clock: Clock, bound: Mapping[str, int] | None = None) -> Collected:
    """Collect the contributions to a plan into a folder, or go on. A site that is `bound` to a node can answer from
    there alone. Raises DocumentError where the folder is of another plan.
    """
    _claim(plan, folder)
    round_ = _Round(plan, folder, bound or {}, came=set(kept(plan, folder)))
    end = clock.now() + (plan.collection or Collection()).deadline
    while not round_.settled and (left := end - clock.now()) > 0:
        _ask(round_, grid, left)
        for some in _pieces(list(round_.waiting), PULLED_AT_ONCE):
            for reply in grid.pull_messages(some):
                _take(round_, reply)
        if not round_.settled:
            clock.sleep(min(PAUSE, left))
    outcome = _outcome(round_)
    atomic_write(folder / "collection.json", (json.dumps(asdict(outcome), indent=2) + "\n").encode())
    return outcome


def kept(plan: Plan, folder: Path) -> dict[str, Path]:
    """The contributions that are in a folder already, whole and to this plan, by site."""
    found = {}
    for path in sorted((folder / "contributions").glob("*.safetensors")):
        try:
            site = read_contribution(path, plan).site
        except DocumentError as error:
            logger.warning("%s; it is asked for again", error)
            continue
        if path == contribution_path(folder, site):
            found[site] = path
    return found


def contribution_path(folder: Path, site: str) -> Path:
    """Where a site's contribution is kept."""
    return folder / "contributions" / f"{site}.safetensors"


def _claim(plan: Plan, folder: Path) -> None:
    path = folder / "plan.json"
    if path.exists() and (found := read_plan(path).digest) != plan.digest:
        raise DocumentError(
            f"{folder} should be empty or hold a round of plan {plan.digest[:16]}…; found one of {found[:16]}…: "
            "choose another folder"
        )
    write_plan(plan, path)


def _ask(round_: _Round, grid: Grid, left: float) -> None:
    """Send the plan to every node that was not asked yet."""
    new = sorted(set(grid.get_node_ids()) - round_.asked)
    content = plan_content(plan_bytes(round_.plan), sorted(round_.came))
    for nodes in _pieces(new, ASKED_AT_ONCE):
        messages = [Message(content, node, QUESTION, ttl=left + GRACE) for node in nodes]
        for node, identity in zip(nodes, grid.push_messages(messages), strict=True):
            if identity:  # else the server's Flower did not take it: the next look tries again
                round_.waiting[identity] = node
                round_.asked.add(node)


def _take(round_: _Round, reply: Message) -> None:
    """Keep one answer, or say why not."""
    node = round_.waiting.pop(reply.metadata.reply_to_message_id, None)
    if node is None:
        round_.note("an answer to no question came; it is dropped")
    elif reply.has_error():
        round_.failures[node] += 1
        again = round_.failures[node] < ATTEMPTS
        round_.note(
            f"{round_.label(node)} failed, Flower's code {reply.error.code}{': it is asked again' if again else ''}"
        )
        if again:
            round_.asked.discard(node)
    else:
        _keep(round_, reply, node)


def _keep(round_: _Round, reply: Message, node: int) -> None:
    plan, site = round_.plan, f"node {node}"
    try:
        answer = read_answer(reply, contribution_limit(plan))
        site = answer.site[:64]
        if site and (why := round_.stranger(site, node)):
            round_.note(f"{round_.label(node)} says that it is {site!r}, {why}: its answer is dropped")
            return
        if answer.content is None:
            if answer.refusal:
                raise DocumentError(answer.refusal[:200])
            return  # it is among those that had answered
        contribution = parse_contribution(answer.content, plan)
        if contribution.site != site:
            raise DocumentError(f"the contribution should be of {site!r}; found one of {contribution.site!r}")
    except DocumentError as error:
        round_.note(f"{site} sent nothing that counts: {error}")
        if site not in round_.came:
            round_.refused[site] = str(error)
        return
    if site in round_.came:
        same = round_.path(site).read_bytes() == answer.content
        who = f"{site} answered twice"
        if (first := round_.nodes.get(site, node)) != node:
            who = f"two nodes say that they are {site!r}, {first} and then {node}"
        round_.note(f"{who}, {'the same' if same else 'something else'}: the first answer stays")
        return
    atomic_write(round_.path(site), answer.content, private=True)
    round_.came.add(site)
    round_.nodes[site] = node
    round_.refused.pop(site, None)
    logger.info("%s came, %s bytes; %d of %d", site, f"{len(answer.content):,}", len(round_.came), plan.sites)


def _outcome(round_: _Round) -> Collected:
    plan, came = round_.plan, tuple(sorted(round_.came))
    quorum = (plan.collection or Collection()).quorum
    state: CollectionState = "complete" if len(came) >= plan.sites else "enough" if len(came) >= quorum else "too few"
    missing = tuple(name for name in plan.site_names or () if name not in round_.came)
    if plan.site_names is None and len(came) < plan.sites:
        missing = (f"{plan.sites - len(came)} of {plan.sites} sites, which the plan does not name",)
    return Collected(plan.digest, state, came, round_.nodes, round_.refused, missing, tuple(round_.notes))


def _pieces(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
