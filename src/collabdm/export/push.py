"""Upload an exported data set folder to the Hugging Face hub.

The repository is created if it does not exist, private unless the caller asks for a public one.
The account is that of `hf auth login`, or of the environment variable HF_TOKEN; HF_ENDPOINT names
another server with the same interface. Access is checked before anything is written or uploaded.

Reference: https://huggingface.co/docs/huggingface_hub/guides/upload.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from collabdm.errors import OutputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")

NO_ACCESS = (401, 403)  # HTTP: not logged in, not allowed


def check_push(repository: str) -> None:
    """Check the name of a repository, and that the hub knows the account.

    Raises:
        OutputError: the name is not OWNER/NAME, nobody is logged in, or the hub does not answer.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise _wrong_name(repository) from error
    if repository.count("/") != 1:
        raise _wrong_name(repository)
    _on_the_hub(repository, lambda api: api.whoami())


def push(folder: Path, repository: str, public: bool = False) -> str:
    """Upload a folder that `export` wrote in its form `hub`.

    Args:
        folder: the folder.
        repository: OWNER/NAME on the hub; it is created if it does not exist.
        public: whether a new repository is visible to everybody.

    Returns:
        The address of the data set.

    Raises:
        OutputError: the hub refused the upload or did not answer.
    """

    def upload(api: "HfApi") -> str:
        created = api.create_repo(
            repository, repo_type="dataset", private=not public, exist_ok=True
        )
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type="dataset",
            commit_message="Upload a distilled set",
        )
        return str(created)

    return _on_the_hub(repository, upload)


def _on_the_hub(repository: str, act: "Callable[[HfApi], Result]") -> Result:
    """Carry out an action on the hub; its errors become this package's."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    # its first base is the error of the HTTP library that the hub's package uses
    no_connection: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)
    try:
        return act(api)
    except LocalTokenNotFoundError as error:
        raise OutputError(
            f"`{repository}` should be a repository of an account that is logged in; found no "
            "login: run `hf auth login`, or set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "check the owner, and that the token may write" if status in NO_ACCESS else "retry"
        raise OutputError(
            f"`{repository}` should accept the upload; {api.endpoint} answered {status}: {advice}"
        ) from error
    except no_connection as error:
        raise OutputError(
            f"{api.endpoint} should answer; found no connection ({type(error).__name__}): check "
            "the network, or upload the folder later with `hf upload --repo-type dataset`"
        ) from error


def _wrong_name(repository: str) -> OutputError:
    return OutputError(
        f"`--push` should be OWNER/NAME, such as my-lab/distilled-digits; found {repository!r}"
    )
