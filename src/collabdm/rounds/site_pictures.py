"""Load a site's pictures as a plan asks for them: its classes, its size, its rules for pixels."""

from dataclasses import replace
from typing import Literal

from collabdm.data.selection import Selection
from collabdm.data.sources import fit_classes, load_tallied
from collabdm.data.tally import Tally
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.plan import Plan
from collabdm.errors import DataError
from collabdm.images import ImageSet
from collabdm.methods.base import check_data

Split = Literal["train", "test"]


def load_pictures(
    plan: Plan, location: str, split: Split, selection: Selection, resize: bool
) -> tuple[ImageSet, Tally]:
    """Load pictures in the plan's classes and image shape, and count them.

    Args:
        plan: the plan, whose rules for pictures are followed.
        location: a name, a folder, a file or hub:OWNER/NAME (see `data.sources`).
        split: the training or the test part.
        selection: the columns, class names and splits; its rules are replaced by those of the plan.
        resize: whether to convert images to the plan's size and channels.

    Returns:
        The images, and the tally.

    Raises:
        DataError: the data cannot be read, or does not fit the plan.
    """
    image, rules = plan.image, plan.pictures or PictureRules()
    side, channels = (image.side, image.channels) if resize else (None, None)
    chosen = replace(selection, rules=rules)

    found, tally = load_tallied(location, split, side=side, channels=channels, selection=chosen)
    data = fit_classes(found, plan.classes)
    try:
        check_data(plan, data)
    except DataError as error:
        if data.shape == image.shape:
            raise
        raise DataError(f"{error}: `--resize` brings them to it") from error
    return data, tally
