"""What an engine may do otherwise, as a name for messages and the stage that a verdict names."""

from typing import Final, NamedTuple

TEMPERATURE: Final = "temperature"
EOS: Final = "EOS"
"""Families whose members differ in size: a factor of the temperature, and nats that are added to the logit of EOS."""


class Named(NamedTuple):
    """stage: that a verdict names. text: what is done otherwise.

    family: all of its members together, in words. size: of the members of TEMPERATURE and EOS.
    """

    stage: str
    text: str
    family: str = ""
    size: float = 0.0
