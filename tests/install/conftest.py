"""What the tests of the distributions share."""

from pathlib import Path

import pytest

from tests.install.distributions import build


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder
