"""Write the card of an exported set for the Hugging Face hub: YAML front matter, then text.

The card states only what the set's own documents establish: which plan and method produced it,
whether its images can show real images, and the accuracies that were measured. It names a licence,
and the sites with their numbers of images, only if the caller asks for them.

Reference: T. Gebru et al., "Datasheets for datasets", Communications of the ACM, 2021.
"""

import json
from dataclasses import dataclass
from typing import Any

from collabdm.documents.outcomes import DistilledSet, contributing_sites
from collabdm.errors import printable
from collabdm.images import ImageSet
from collabdm.methods.registry import all_methods
from collabdm.privacy.wording import guarantee
from collabdm.scoring.evaluation import Score

SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"

LOADING = """```python
from datasets import load_dataset

images = load_dataset("FOLDER", split="train")  # this folder, or OWNER/NAME on the hub
```"""


@dataclass(frozen=True)
class Card:
    """The parts of a card that the set itself does not determine.

    Attributes:
        licence: The licence of the set, as the hub's identifier, such as `cc-by-4.0`.
        counts: Whether to name the sites, with the number of images of each class.
        scores: Accuracies of networks trained on the set, and on other sets for comparison.
        data: The name of the data that the networks were tested on.
    """

    licence: str | None = None
    counts: bool = False
    scores: tuple[Score, ...] = ()
    data: str = "real"


def card_text(distilled: DistilledSet, images: ImageSet, card: Card) -> str:
    """Write the text of the card, with its front matter.

    Args:
        distilled: The set.
        images: The images as exported, which may be the enlarged small ones.
        card: Licence, counts and scores.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(**_front_matter(distilled, images, card))
    sections = [
        f"# A distilled training set\n\n{_summary(distilled, images)}",
        "![Up to ten images of each class](preview.png)",
        _pae(distilled, images),
        LOADING,
        _real_images(distilled),
        _privacy(distilled),
        "\n".join(_facts(distilled, card)),
        "" if card.licence else "No licence was named: ask the makers of the set before using it.",
        _counts(distilled) if card.counts else "",
        _plan(distilled, card.counts),
    ]

    body = printable("\n\n".join(filter(None, sections)), keep="\n")
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _front_matter(distilled: DistilledSet, images: ImageSet, card: Card) -> dict[str, Any]:
    tags = ["dataset-distillation"]
    if shows_real_images(distilled) is False:
        tags.append("synthetic")
    if len(contributing_sites(distilled.sites)) > 1:
        tags.append("federated-learning")

    files = [{"split": "train", "path": "data/train-*"}]
    return {
        "license": card.licence,
        "task_categories": ["image-classification"],
        "tags": tags,
        "size_categories": [_size_category(len(images))],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _size_category(n: int) -> str:
    return next((name for limit, name in SIZES if n < limit), LARGEST_SIZE)


def _summary(distilled: DistilledSet, images: ImageSet) -> str:
    side, method = distilled.plan.image.side, distilled.method
    known = all_methods().get(method)
    several = known is not None and known.run_rounds is not None
    sites = len(contributing_sites(distilled.sites))

    rounds = "several rounds" if several else "one round"
    origin = f"by {sites} {'site' if sites == 1 else 'sites'} in {rounds}"
    if known is not None and known.pooled:
        origin = "from pooled data"

    training = "train on them as on any labelled images"
    if _packed(distilled, images):
        training = "cut them into the images that they contain, as below, train on those"

    return (
        f"{len(images)} images of {side} x {side} pixels, {len(images.classes)} classes, made "
        f"{origin} with collabdm (method {method}). They are meant for training: {training}, and "
        "test on real ones."
    )


def _pae(distilled: DistilledSet, images: ImageSet) -> str:
    pae = distilled.plan.pae
    if pae == 1:
        return ""

    if not _packed(distilled, images):
        return (
            f"The set stores {pae**2} small images in each image (partition and expand); here they "
            "are separate and enlarged, ready to train on."
        )
    return (
        f"**Each image contains {pae**2} small ones** (partition and expand): cut every image into "
        f"{pae} x {pae} tiles, and enlarge each to the size of the image before training. "
        "`collabdm export` without `--packed` does this."
    )


def _packed(distilled: DistilledSet, images: ImageSet) -> bool:
    """Return whether images contain several small ones each."""
    return distilled.plan.pae > 1 and len(images) == len(distilled.images)


def shows_real_images(distilled: DistilledSet) -> bool | None:
    """Return whether images of a set are, or started from, real images; None if unknown."""
    method = all_methods().get(distilled.method)
    if method is None or method.run_rounds is not None:
        return None
    return method.shows_real_images(distilled.plan)


def _real_images(distilled: DistilledSet) -> str:
    shown = shows_real_images(distilled)
    if shown is None:
        return "Ask the makers of the set whether its images are, or started from, real images."
    if shown:
        return (
            "**Images of this set are, or started from, real images of the sites, and can still "
            "show them.** Publish the set only if those images may be published."
        )
    none = "No image of this set is a real image or started from one."
    if distilled.plan.local.average_of is not None:
        none += (
            f" They started from averages of at least {distilled.plan.local.average_of} similar "
            "images each."
        )
    return none if distilled.plan.privacy else f"{none} This is not a guarantee of privacy."


def _privacy(distilled: DistilledSet) -> str:
    """State the guarantee of a privacy budget; empty without one."""
    privacy = distilled.plan.privacy
    if privacy is None:
        return ""
    return (
        "Each image of the sites is protected by differential privacy with "
        f"{guarantee(privacy)}. An image that belongs to a person with several images is "
        "protected less, and other releases of the same data add up."
    )


def _facts(distilled: DistilledSet, card: Card) -> list[str]:
    plan, image = distilled.plan, distilled.plan.image
    accuracies = [
        f"- trained on {score.what}, {score.network}: accuracy {100 * score.mean:.1f} % on "
        f"{card.data} test images (std {100 * score.std:.1f}, n = {score.n})"
        for score in card.scores
    ]
    return [
        f"- normalise with mean {list(image.mean)} and std {list(image.std)} (pixels in 0 .. 1)",
        f"- plan `{plan.digest}`, seed {plan.seed}, {plan.steps} steps, ipc {plan.ipc}",
        *accuracies,
    ]


def _counts(distilled: DistilledSet) -> str:
    classes = distilled.plan.classes
    rows = [
        f"| {site} | {' | '.join(map(str, counts))} |" for site, counts in distilled.sites.items()
    ]
    head = [f"| site | {' | '.join(classes)} |", "|---|" + "---:|" * len(classes)]

    return "\n".join(["## Images at the sites\n", *head, *rows])


def _plan(distilled: DistilledSet, name_sites: bool) -> str:
    """Write the plan as JSON, without the names of the sites unless they are asked for."""
    document, note = distilled.plan.model_dump(mode="json"), ""
    if not name_sites:
        named = document.pop("site_names", None)
        keys = document.get("masking", {}).pop("keys", None)
        note = "Without the names of the sites:\n\n" if named or keys else ""

    text = json.dumps(document, indent=2, ensure_ascii=False)
    return f"## The plan\n\n{note}```json\n{text}\n```"
