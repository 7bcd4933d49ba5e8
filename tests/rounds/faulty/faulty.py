"""A ClientApp with faults, chosen in the node's configuration: `fault="garbage"`, `fault="waits"`.

Everything else is the real program.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from collabdm.documents.plan_file import parse_plan
from collabdm.flower import site
from collabdm.flower.wire import Answer, answer_content, read_question
from collabdm.rounds.contributions import contribution_limit

OWN_KEYS = {"fault", "until", "sends"}  # of a node's configuration; the real program refuses them

app = ClientApp()


def _honest(message: Message, context: Context) -> Message:
    config = {key: value for key, value in context.node_config.items() if key not in OWN_KEYS}
    return site.app(message, replace(context, node_config=config))


def _raises(message: Message, context: Context) -> Message:
    raise RuntimeError("a message that names /data/patients")


def _waits(message: Message, context: Context) -> Message:
    """Report work by a file, then wait for the file `until` and answer, or give up after 900 s."""
    folder = Path(str(context.node_config["folder"]))
    folder.mkdir(exist_ok=True)
    (folder / "works").touch()
    end = time.monotonic() + 900
    while not Path(str(context.node_config["until"])).exists():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)
    return _honest(message, context)


def _sends(
    make: Callable[[bytes, Message, Context], bytes],
) -> Callable[[Message, Context], Message]:
    def send(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        content = make(read_question(message)[0], message, context)
        return Message(answer_content(Answer(name, content)), reply_to=message)

    return send


def _given(plan: bytes, message: Message, context: Context) -> bytes:
    """A contribution that was made beforehand: with NaN, or to another plan."""
    return Path(str(context.node_config["sends"])).read_bytes()


def _too_large(plan: bytes, message: Message, context: Context) -> bytes:
    return bytes(contribution_limit(parse_plan(plan)) + 300_000_000)


FAULTS: dict[str, Callable[[Message, Context], Message]] = {
    "none": _honest,
    "raises": _raises,
    "waits": _waits,
    "garbage": _sends(lambda *_: b"garbage" * 1000),
    "given": _sends(_given),
    "too large": _sends(_too_large),
}


@app.query("contribute")
def contribute(message: Message, context: Context) -> Message:
    """Answer a plan, or not."""
    return FAULTS[str(context.node_config.get("fault", "none"))](message, context)
