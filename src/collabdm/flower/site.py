"""The ClientApp: one site's answer to the plan in the message.

What a site is stands in its own node's configuration (`--node-config`), never in a message:

    site="north"              its name
    data="/data/north"        its data, as for `collabdm contribute --data`
    policy="/etc/site.toml"   what it allows (`policy`); else everything
    folder="/var/collabdm"    where it keeps what it sent: the same question is answered from there
    rows="Cell=1"             of a table of flows: only these rows
    resize=true  device="cpu"  precision="float32"  threads=2

Where Flower simulates, its nodes have a number only: then the environment variable COLLABDM_SITES names the
data, with {site} for site-1, site-2, … An answer always comes. Of what went wrong it says the kind, since the
message of an error may name files or data; the whole of it stands in the site's own log.
"""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from collabdm.documents.plan_file import parse_plan
from collabdm.errors import DataError, DocumentError, OutputError, PlanError, ProbeError
from collabdm.flower.wire import Answer, answer_content, read_question
from collabdm.matching.compute import choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import (
    DataSource,
    Site,
    contribute_file,
    data_digest,
    load_for_plan,
    prepare_site,
)
from collabdm.rounds.policy import PolicyError, read_policy

logger = logging.getLogger("flwr.collabdm")


app = ClientApp()


#: what the server is told, the first that fits
REFUSALS: tuple[tuple[type[BaseException], str], ...] = (
    (PolicyError, "the site's policy does not allow this plan"),
    (ProbeError, "the site computes other numbers than the author of the plan: versions should be compared"),
    (PlanError, "the site cannot carry out this plan"),
    (DocumentError, "the site did not get a whole plan"),
    (DataError, "the site's data cannot be read, or do not fit the plan"),
    (OutputError, "the site cannot write to its folder"),
    (MemoryError, "the site has too little memory"),
    (Exception, "the site failed"),
)


@app.query("contribute")  # type: ignore[untyped-decorator]
def contribute(message: Message, context: Context) -> Message:
    """Answer a plan; always with a message."""
    name = ""
    try:
        name = site_name(context.node_config)
        content, answered = read_question(message)
        sent = None if name in answered else answer(content, name, context.node_config)
        reply = Answer(name, sent)
    except Exception as error:
        logger.exception("no contribution was made")
        reply = Answer(name, refusal=next(text for kind, text in REFUSALS if isinstance(error, kind)))
    return Message(answer_content(reply), reply_to=message)


def site_name(config: Mapping[str, Any]) -> str:
    """The site's name. Raises DataError where its configuration has none."""
    if "site" in config:
        return str(config["site"])
    if "partition-id" in config:
        return f"site-{int(config['partition-id']) + 1}"
    raise DataError('the node\'s configuration should name its site, site="…"; found no name')


def answer(content: bytes, name: str, config: Mapping[str, Any]) -> bytes:
    """The bytes of a contribution. Raises CollabDMError."""
    plan = parse_plan(content)
    plan.check_site(name)
    site = Site(name, read_policy(Path(config["policy"]) if "policy" in config else None))
    if (threads := int(config.get("threads", 0))) > 0:
        torch.set_num_threads(threads)
    compute = choose_compute(str(config.get("device", "auto")), str(config.get("precision", "auto")))
    rows = str(config["rows"]) if "rows" in config else None
    source = DataSource(_source(name, config), bool(config.get("resize", False)), rows)
    prepared = prepare_site(plan, load_for_plan(plan, source), site)
    digest = data_digest(prepared.data)

    with tempfile.TemporaryDirectory() as passing:
        folder = Path(config.get("folder", passing))
        path = folder / f"{name}-{plan.digest[:16]}-{digest[:16]}.safetensors"
        try:
            read_contribution(path, plan)
        except DocumentError:  # there is none yet
            contribute_file(prepared, path, RunContext(compute))
        return path.read_bytes()


def _source(name: str, config: Mapping[str, Any]) -> str:
    source = config.get("data") or os.environ.get("COLLABDM_SITES", "").replace("{site}", name)
    if not source:
        raise DataError('the node\'s configuration should name its data, data="…"; found none')
    return str(source)
