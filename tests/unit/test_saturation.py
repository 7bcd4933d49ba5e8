"""Sets whose pixels were driven to the ends of their range."""

import pytest
import torch
from tiny import CLASSES, tiny_plan

from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.images import ImageSet
from collabdm.rounds.saturation import largest_share, saturation, saturation_note

COLOUR = ImageSpec(channels=3, side=8, mean=(0.47, 0.47, 0.47), std=(0.25, 0.25, 0.25))
DIGITS = ImageSpec(channels=1, side=8, mean=(0.3,), std=(0.38,))


def with_share(plan: Plan, share: float) -> DistilledSet:
    """A set of grey images of which this share of the pixels is 0 or 255, half of each."""
    labels = torch.arange(len(CLASSES)).repeat_interleave(plan.ipc)
    pixels = torch.full((len(labels), *plan.image.shape), 100, dtype=torch.uint8)
    ends = round(share * pixels.numel())
    pixels.view(-1)[:ends:2], pixels.view(-1)[1:ends:2] = 0, 255
    return DistilledSet(ImageSet(pixels, labels, CLASSES), plan, {"a": [1, 1, 1]}, plan.method)


def plan_with(image: ImageSpec = COLOUR, rate: float = 30.0) -> Plan:
    return tiny_plan(image, images="uint8", refinement={"matching": {"learning_rate": rate}})


def test_the_share_counts_pixels_at_both_ends() -> None:
    assert saturation(with_share(plan_with(), 0.25)) == pytest.approx(0.25, abs=0.01)


def test_images_with_a_black_ground_may_have_more_pixels_at_the_ends_than_photographs() -> None:
    assert largest_share(plan_with(COLOUR)) == pytest.approx(0.31, abs=0.02)
    assert largest_share(plan_with(DIGITS)) == pytest.approx(0.69, abs=0.02)


@pytest.mark.parametrize(
    ("image", "harmless", "harmful"), [(COLOUR, 0.15, 0.35), (DIGITS, 0.67, 0.96)]
)
def test_measured_sets_are_told_apart(image: ImageSpec, harmless: float, harmful: float) -> None:
    plan = plan_with(image)

    assert saturation_note(with_share(plan, harmless)) is None
    assert saturation_note(with_share(plan, harmful)) is not None


@pytest.mark.parametrize(
    ("rate", "lower"), [(30.0, "10"), (10.0, "3"), (1.0, "0.3"), (0.2, "0.07")]
)
def test_the_note_names_the_setting_and_a_third_of_the_rate(rate: float, lower: str) -> None:
    note = saturation_note(with_share(plan_with(rate=rate), 0.5))

    assert note is not None
    assert note.startswith("50% of the set's pixels")
    assert note.endswith(f"`--set refinement.matching.learning_rate={lower}`")


def test_without_refinement_the_rate_is_that_of_the_sites() -> None:
    plan = tiny_plan(COLOUR, images="uint8", refinement={"passes": 0})
    note = saturation_note(with_share(plan, 0.9))

    assert note is not None
    assert "--set local.matching.learning_rate=0.3" in note


def test_real_images_get_no_note() -> None:
    plan = tiny_plan(COLOUR, images="uint8", local={"method": "random"}, refinement={"passes": 0})

    assert saturation_note(with_share(plan, 0.9)) is None
