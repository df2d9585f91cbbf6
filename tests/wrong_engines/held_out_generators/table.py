"""The table of held-out generators."""

from tests.wrong_engines.later_generators.table import registration
from tests.wrong_engines.wrong_generators.table import WrongGenerator

HELD_OUT_GENERATORS: dict[str, WrongGenerator] = {}

held_out_generators = registration(HELD_OUT_GENERATORS)
