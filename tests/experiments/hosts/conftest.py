"""Modules of this folder and of a neighbour, which tests import by name."""

import sys
from pathlib import Path

import pytest

# The scenes, and the disk that dies.
for folder in (Path(__file__).parent, Path(__file__).parents[1] / "crash"):
    sys.path.insert(0, str(folder))


@pytest.fixture
def board():
    from boards import Shared

    return Shared()
