"""What an engine may do otherwise, as a name for messages and the stage that a verdict names."""

from typing import NamedTuple


class Named(NamedTuple):
    """stage: that a verdict names. text: what is done otherwise.

    family, size: of those whose detectable size is told.
    """

    stage: str
    text: str
    family: str = ""
    size: float = 0.0
