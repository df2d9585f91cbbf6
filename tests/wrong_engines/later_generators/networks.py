"""What the network computes, and from which prefix."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.generation.block import Block
from sampler.t3.conditioning import Voice
from sampler.t3.llama import Layer, Llama
from sampler.t3.model import T3
from sampler.t3.rotary import Angles, inverse_frequencies
from tests.wrong_engines.wrong_generators.positions import at_positions, with_backbone, with_model
from tests.wrong_engines.wrong_generators.prompts import speaking
from tests.wrong_engines.wrong_generators.table import remade, with_block

from .table import later_generators


class BlankText(T3):
    """The unconditional row has zeros for the text, without its positions."""

    def prefix(self, text: Sequence[int], voice: Voice, **keywords: Any) -> mx.array:
        made = super().prefix(text, voice, **keywords)
        made[1:, self.text_columns(text, voice)] = 0.0
        return made


class NumbersBos(T3):
    """The last BOS is at speech position 1."""

    def prefix(self, *inputs: Any, **keywords: Any) -> mx.array:
        made = super().prefix(*inputs, **keywords)
        made[:, -1] = self.embed_speech([self.config.bos_id], [1])[0]
        return made


class CoarseAngles(Llama):
    """Angles are rounded to bfloat16 before their cosines and sines."""

    def _angles(self, positions: NDArray[np.int64]) -> Angles:
        exact = positions.astype(np.float32)[:, None] * np.tile(inverse_frequencies(self.config), 2)
        angles = np.array(mx.array(exact).astype(mx.bfloat16).astype(mx.float32))
        return np.cos(angles), np.sin(angles)


class Skipped:
    """A layer that hands on its input."""

    def __init__(self, layer: Layer) -> None:
        self.projections = layer.projections

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        return hidden


class SkipsALayer(Block):
    """The layers of its model are all but one."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        backbone = self.model.backbone
        layers = [Skipped(layer) if place == 3 else layer for place, layer in enumerate(backbone.layers)]
        self.model = remade(self.model, T3, backbone=remade(backbone, Llama, layers=layers))


later_generators(
    "unconditional_row_has_no_positions: "
    "the unconditional row has zeros for the text, where the positions of the text should stay [C06].",
    with_model(BlankText),
    "speech_is_one_position_ahead: token i stands at speech position i + 2, not at i + 1 [K05].",
    at_positions(lambda position: position + 1 if position else 0),
    "second_bos_has_a_position_of_its_own: the second BOS is at speech position 1, where both are at 0 [C06].",
    with_model(NumbersBos),
    "voice_is_hardly_emotional: the default of a port, an emotion of 0.1, in place of the 0.5 of the voice [P05].",
    speaking(lambda voice: replace(voice, emotion=0.1)),
    "rotary_angles_in_bfloat16: rotary angles are rounded to bfloat16, whose numbers have eight bits [N07].",
    with_backbone(CoarseAngles),
    "skips_a_layer: the fourth of six layers hands on its input.",
    with_block(SkipsALayer),
)
