"""The ClientApp, which answers a plan for one site.

A site is configured only by its own node (`--node-config`), never by a message:

    site="north"              its name
    data="/data/north"        its data, as for `collabdm contribute --data`
    policy="/etc/site.toml"   its policy; without one, the defaults of `rounds.policy` apply
    folder="/var/collabdm"    where contributions are stored; a repeated plan is answered from there
    rows="Cell=1"             use only these rows of a table of flows
    key="/etc/north.mask.key" its private key for masks; default: the one in its private folder
    without="ship,truck"      classes that it leaves out, besides those of its policy
    unmask=false              whether it answers that sites are missing (below)
    skip-unreadable=true      leave out pictures that cannot be read, and count them in the log
    label-column="grade"  image-column="scan"  class-names="/data/names.txt"
    resize=true  device="cpu"  precision="float32"  threads=2

Unknown keys and values of the wrong type are rejected (`settings`). Nodes of Flower's simulation
engine have only a number; the environment variable COLLABDM_SITES then locates their data, with
{site} replaced by site-1, site-2, … Only the policy file can allow images that are real or start
from real ones; the classes that the policy withholds are named in the site's own log.

After a drop-out in a round with masks, the server asks for an unmasking. The node answers only with
`unmask=true`; otherwise the operator of the site decides, and answers by file (`collabdm unmask`).

Every message is answered. A refusal is one of a few fixed sentences, since the message of an error
may name files or data; the error itself is written to the site's own log.
"""

import logging
import os
import tempfile
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from collabdm.data.selection import read_selection
from collabdm.documents.plan_file import parse_plan
from collabdm.errors import (
    CollabDMError,
    DataError,
    DocumentError,
    OutputError,
    PlanError,
    ProbeError,
)
from collabdm.flower.settings import NodeSettings, SettingsError, claimed_name, parse_settings
from collabdm.flower.telemetry import switch_off_telemetry
from collabdm.flower.wire import Answer, answer_content, read_missing_question, read_question
from collabdm.matching.run_context import RunContext
from collabdm.privacy.ledger import LedgerError
from collabdm.privacy.site_keys import SiteKeyError, site_key
from collabdm.privacy.unmasking_record import UnmaskedError
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import (
    DataSource,
    Site,
    contribute_file,
    load_for_plan,
    prepare_site,
)
from collabdm.rounds.masked import MaskedSite, unmasking_content
from collabdm.rounds.policy import PolicyError, policy_at_site

switch_off_telemetry()

logger = logging.getLogger("flwr.collabdm")
app = ClientApp()


class UnmaskingError(CollabDMError):
    """The node is not configured to answer about missing sites."""


#: the sentence that the server receives for an error; the first matching entry is used
REFUSALS: tuple[tuple[type[BaseException], str], ...] = (
    (SettingsError, "the site's node is configured wrongly"),
    (PolicyError, "the site's policy does not allow this plan"),
    (
        ProbeError,
        "the site computes other numbers than the author of the plan: versions should be compared",
    ),
    (UnmaskingError, "the operator of the site answers about missing sites by file"),
    (SiteKeyError, "the site's private key is missing, or is not the one in the plan"),
    (LedgerError, "the site has answered this plan before, with other data"),
    (UnmaskedError, "the site has answered about other missing sites"),
    (PlanError, "the site cannot carry out this plan"),
    (DocumentError, "the site did not get a whole plan"),
    (DataError, "the site's data cannot be read, or do not fit the plan"),
    (OutputError, "the site cannot write to its folder"),
    (MemoryError, "the site has too little memory"),
    (Exception, "the site failed"),
)


@app.query("contribute")  # type: ignore[untyped-decorator]
def contribute(message: Message, context: Context) -> Message:
    """Answer a plan with a contribution or a refusal; Flower calls this function."""
    name = claimed_name(context.node_config)
    try:
        settings = parse_settings(NodeSettings, context.node_config, "node")
        plan, answered = read_question(message)
        content = None if name in answered else answer(plan, settings)
        reply = Answer(name, content)
    except Exception as error:
        logger.exception("no contribution was made")
        refusal = next(text for kind, text in REFUSALS if isinstance(error, kind))
        reply = Answer(name, refusal=refusal)
    return Message(answer_content(reply), reply_to=message)


@app.query("unmask")  # type: ignore[untyped-decorator]
def unmask(message: Message, context: Context) -> Message:
    """Answer that sites are missing, with an unmasking or a refusal; Flower calls this function."""
    name = claimed_name(context.node_config)
    try:
        settings = parse_settings(NodeSettings, context.node_config, "node")
        plan, missing = read_missing_question(message)
        reply = Answer(name, answer_missing(plan, missing, settings))
    except Exception as error:
        logger.exception("no unmasking was made")
        refusal = next(text for kind, text in REFUSALS if isinstance(error, kind))
        reply = Answer(name, refusal=refusal)
    return Message(answer_content(reply), reply_to=message)


def answer_missing(content: bytes, missing: list[str], settings: NodeSettings) -> bytes:
    """Compute the site's unmasking, if its settings allow that, or read it if it was made earlier.

    Args:
        content: the bytes of a plan.
        missing: the names of the missing sites.
        settings: the site's settings.

    Returns:
        The bytes of an unmasking.

    Raises:
        CollabDMError: the settings do not allow it, or the plan, the key or the names do not fit.
    """
    plan = parse_plan(content)
    if not settings.unmask:
        names = "".join(f" --missing {name}" for name in missing)
        raise UnmaskingError(
            f"`unmask` of the node should be true to answer; it is false: if the sites have not "
            f"contributed, run `collabdm unmask` for plan {plan.digest[:16]}… with{names}"
        )
    key = site_key(plan, settings.name, settings.key)
    return unmasking_content(MaskedSite(plan, settings.name, key), missing)


def answer(content: bytes, settings: NodeSettings) -> bytes:
    """Compute the site's contribution to a plan, or read it if it was stored earlier.

    Args:
        content: the bytes of a plan.
        settings: the site's settings.

    Returns:
        The bytes of a contribution file.

    Raises:
        CollabDMError: the settings, the plan, the data, the policy or the machine does not fit.
    """
    context = RunContext(settings.choose())
    selection = read_selection(
        settings.label_column,
        settings.image_column,
        settings.class_names,
        skip_unreadable=settings.skip_unreadable,
    )
    source = DataSource(data_location(settings), settings.resize, settings.rows, selection)

    plan = parse_plan(content)
    plan.check_site(settings.name)
    policy = policy_at_site(settings.policy, without=settings.without)
    site = Site(settings.name, policy, key=settings.key)
    prepared = prepare_site(plan, load_for_plan(plan, source, note=logger.info), site)
    digest = prepared.data_digest
    classes = prepared.release.classes
    sent = ", ".join(f"{one.name} ({one.images:,})" for one in classes)
    logger.info("plan %s…: allowed by the policy of %s", plan.digest[:16], site.name)
    logger.info("%d of %d classes are sent: %s", len(classes), len(plan.classes), sent)
    for withheld in prepared.release.withheld:
        logger.warning("withheld: %s", withheld)

    with tempfile.TemporaryDirectory() as temporary:
        folder = settings.folder or Path(temporary)
        path = folder / f"{site.name}-{plan.digest[:16]}-{digest[:16]}.safetensors"
        try:
            read_contribution(path, plan)
        except DocumentError:  # no valid contribution is stored
            contribute_file(prepared, path, context)
        content = path.read_bytes()
    kept = f", stored in {path}" if settings.folder else ""
    logger.info("contribution: %s bytes%s", f"{len(content):,}", kept)
    return content


def data_location(settings: NodeSettings) -> str:
    """Find the location of the site's data, in its settings or in COLLABDM_SITES.

    Raises:
        SettingsError: neither gives a location.
    """
    simulated = os.environ.get("COLLABDM_SITES", "").replace("{site}", settings.name)
    location = settings.data or simulated
    if not location:
        raise SettingsError('`data` of the node should locate its data; found none: add data="…"')
    return location
