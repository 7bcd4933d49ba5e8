"""Flower's grid in one process: nodes are functions that answer at once, late, wrongly or never."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from command import OPEN
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid

from collabdm.flower.collecting import Clock
from collabdm.flower.site import app
from collabdm.flower.wire import Answer, answer_content

Node = Callable[[Message], list[Message]]

with contextlib.suppress(ImportError):  # flwr 1.42: messages belong to the task of a run
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


@dataclass
class Hours:
    """A clock that advances only by waiting."""

    seconds: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


@dataclass
class InProcess(Grid):
    """A grid of nodes by number.

    `late` is the time in seconds that a node's answer takes; `before_pull` may stop the server. An
    answer is computed when it is pulled: until then it is not in the server's memory, as with real
    nodes.
    """

    nodes: dict[int, Node]
    hours: Hours = field(default_factory=Hours)
    late: dict[int, float] = field(default_factory=dict)
    before_pull: Callable[[], None] = lambda: None
    asked: list[int] = field(default_factory=list)
    _replies: dict[str, tuple[float, Callable[[], list[Message]]]] = field(default_factory=dict)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        identity = f"message-{len(self.asked)}"
        self.asked.append(node)
        arrived = Message(message.content, metadata=_metadata(message, identity))
        at = self.hours.seconds + self.late.get(node, 0.0)
        self._replies[identity] = (at, partial(self.nodes[node], arrived))
        return identity

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.before_pull()
        ready = [
            i
            for i in message_ids
            if i in self._replies and self._replies[i][0] <= self.hours.seconds
        ]
        return [reply for identity in ready for reply in self._replies.pop(identity)[1]()]


def _metadata(message: Message, identity: str) -> Metadata:
    """The metadata of a message as Flower completes them in transit."""
    sent = message.metadata
    return Metadata(
        run_id=1,
        message_id=identity,
        src_node_id=1,
        dst_node_id=sent.dst_node_id,
        reply_to_message_id="",
        group_id="",
        created_at=sent.created_at,
        ttl=sent.ttl,
        message_type=sent.message_type,
    )


def site_node(**config: Any) -> Node:
    """A node that runs the real ClientApp with a configuration."""
    context = Context(run_id=1, node_id=2, node_config=config, state=RecordDict(), run_config={})
    return lambda message: [app(message, context)]


def data_node(site: str, data: Path, /, **config: Any) -> Node:
    """A node with data of its own, and a policy that allows everything."""
    own = {"site": site, "data": str(data / f"{site}.npz"), "policy": OPEN[1]}
    return site_node(**{**own, "device": "cpu", "precision": "float32", **config})


def saying(site: str, content: bytes, times: int = 1) -> Node:
    """A node that sends these bytes as its contribution."""
    return lambda message: [
        Message(answer_content(Answer(site, content)), reply_to=message) for _ in range(times)
    ]


def failing(code: int, times: int, then: Node) -> Node:
    """A node that answers after a number of errors, which Flower reports by their code."""
    left = iter([code] * times)

    def node(message: Message) -> list[Message]:
        error = next(left, None)
        return then(message) if error is None else [Message(Error(error), reply_to=message)]

    return node
