"""Signatures are enforced in the tests: jaxtyping's shapes, checked by beartype."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

hook = install_import_hook("collabdm", "beartype.beartype")
hook.__enter__()  # for the whole session: modules are imported later, by the tests
torch.set_num_threads(1)  # the tests' networks are tiny: threads would only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # the same for commands and for processes of their own


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded data sets and a site's private files go to folders of their own, not the user's."""
    os.environ["COLLABDM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["COLLABDM_SITE_FOLDER"] = str(tmp_path_factory.mktemp("site"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    folder = os.environ.get("COLLABDM_DATA")
    if folder is None:
        pytest.skip("COLLABDM_DATA names no folder of real data sets")
    return Path(folder)
