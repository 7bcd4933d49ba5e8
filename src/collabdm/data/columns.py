"""Find the columns of images and labels in a table.

A column is a candidate if it has a usual name, in any case, or if its type says so. Of several
candidates none is chosen silently.
"""

from collections.abc import Iterable, Sequence

from collabdm.data.selection import Selection
from collabdm.errors import DataError, did_you_mean

IMAGE_COLUMNS = ("image", "img", "images", "picture", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = (
    *("label", "labels", "fine_label", "coarse_label", "class", "target", "cls", "category"),
    *("diagnosis", "dx"),
)


def pick_columns(
    present: Iterable[str],
    where: str,
    selection: Selection = Selection(),
    typed: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[str, str]:
    """Find the image column and the label column.

    Args:
        present: The names of all columns.
        where: The name of the source, for errors.
        selection: The choices of the user.
        typed: The columns whose type is that of images, and of class labels.

    Returns:
        The names of the two columns.

    Raises:
        DataError: A column is missing, or there are several candidates.
    """
    present = list(present)
    image = _pick("image", present, where, selection.image_column, typed[0])
    label = _pick("label", present, where, selection.label_column, typed[1])
    return image, label


def need_column(name: str, present: Sequence[str], where: str) -> None:
    """Check that the source `where` has an additional column. Raises DataError."""
    if name not in present:
        raise DataError(f"{where} should have a column `{name}`; found {', '.join(present)}")


def _pick(
    kind: str, present: Sequence[str], where: str, chosen: str | None, typed: Sequence[str]
) -> str:
    """Find one column; `kind` is image or label. Raises DataError."""
    if chosen is not None:
        if chosen not in present:
            raise DataError(
                f"{where} should have the column `{chosen}` of `--{kind}-column`; "
                f"found {', '.join(present)}{did_you_mean(chosen, present)}"
            )
        return chosen

    usual = IMAGE_COLUMNS if kind == "image" else LABEL_COLUMNS
    candidates = [name for name in present if name.lower() in usual or name in typed]
    if len(candidates) == 1:
        return candidates[0]

    if not candidates:
        raise DataError(
            f"{where} should have a column of {kind}s ({', '.join(usual)}); "
            f"found {', '.join(present)}: name it with `--{kind}-column`"
        )
    raise DataError(
        f"{where} should have one column of {kind}s; found {', '.join(candidates)}: choose one "
        f"with `--{kind}-column`"
    )
