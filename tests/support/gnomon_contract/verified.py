"""What a method was compared with, said once: in its test file, as data."""

from typing import NamedTuple


class Verified(NamedTuple):
    """One method of the catalogue, and how far its numbers were checked."""

    # Its number in the catalogue of methods; "" of what is in none.
    catalogue: str
    # What it was compared with; "" where nothing runs.
    against: str = ""
    # The largest difference seen, rounded up; a test holds it.
    within: float | None = None
    # Its paper, where no docstring of gnomon's refers to one.
    paper: str = ""
