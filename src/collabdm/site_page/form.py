"""The form of the operator's page: the options of `collabdm contribute`, with the same meaning."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from collabdm.data.selection import read_selection
from collabdm.documents.frozen_model import FrozenModel, validation_message
from collabdm.documents.json_text import load_json
from collabdm.errors import CollabDMError
from collabdm.rounds.exchange import DataSource

Text = Annotated[str, Field(max_length=4096)]


class Form(FrozenModel):
    """What the operator enters; an empty text is no value, as without the option."""

    site: Text = ""
    data: Text = ""
    folder: Text = ""
    without: Annotated[tuple[Text, ...], Field(max_length=10**5)] = ()
    smallest_class: Annotated[int, Field(ge=1)] | None = None
    allow_real_images: bool = False
    resize: bool = False
    skip_unreadable: bool = False
    rows: Text = ""
    label_column: Text = ""
    image_column: Text = ""
    class_names: Text = ""

    def check_complete(self) -> None:
        """Check that everything needed was entered. Raises CollabDMError, naming all that lacks."""
        needed = {
            "site": "the name of this site, as in the plan",
            "data": "a folder, a file or the name of a data set",
            "folder": "the folder for the contribution",
        }
        if lacking := [name for name in needed if not getattr(self, name).strip()]:
            raise CollabDMError(
                "\n".join(f"`{name}` should be {needed[name]}; found nothing" for name in lacking)
            )

    @property
    def source(self) -> DataSource:
        """The site's data. Raises DataError if the class names cannot be read."""
        selection = read_selection(
            self.label_column or None,
            self.image_column or None,
            self.class_names or None,
            skip_unreadable=self.skip_unreadable,
        )
        return DataSource(self.data.strip(), self.resize, self.rows or None, selection)

    @property
    def output(self) -> Path:
        """The file of the contribution, in the folder; the name of the site was checked before."""
        return Path(self.folder.strip()).expanduser().absolute() / f"{self.site}.safetensors"


def read_form(content: bytes) -> Form:
    """Read a form from JSON.

    Raises:
        CollabDMError: it is not JSON, or a field does not fit; the message names all such fields.
    """
    try:
        fields: Any = load_json(content)
    except ValueError as error:
        raise CollabDMError(f"the form should be JSON; found text that is not ({error})") from error
    try:
        return Form.model_validate(fields)
    except ValidationError as error:
        raise CollabDMError(validation_message(error)) from error
