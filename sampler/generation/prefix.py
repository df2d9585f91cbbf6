"""What stands before the speech, computed once for all requests of a block that have a text.

A sequence is cut into parts, and all parts but the last are kept: a part whose rows, and all rows before it, are those
of a part that is there is not computed again. So the voice is computed once for all texts, and the unconditional rows,
which have the positions of a text and not its words, once for the longest one. Where the cuts lie follows from the
sequence alone, and so do the shapes of its matrix products: what a request gets does not depend on its neighbours.
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache, Part
from sampler.t3.conditioning import Voice
from sampler.t3.model import T3

BLANK_PART = 32
"""Positions of a part of the unconditional text: a text computes less than that anew."""


class Prefix(NamedTuple):
    """Voice, text and BOS. logits: of the first token, (rows, V). attention: of the last query."""

    cache: KeyValueCache
    logits: mx.array
    attention: Sequence[mx.array]


class Prefixes:
    """The prefixes of a block's texts, with the parts that they share. guided, bos_count: as `T3.prefix` has them."""

    def __init__(
        self, model: T3, voice: Voice, attention: AttentionRequest, *, guided: bool, bos_count: int | None
    ) -> None:
        self.model, self.voice, self.attention = model, voice, attention
        self.guided, self.bos_count = guided, bos_count
        self._whole: dict[tuple[int, ...], Prefix] = {}
        self._parts: dict[bytes, Part] = {}

    def of(self, text: tuple[int, ...]) -> Prefix:
        """The prefix of a text, computed unless it is there."""
        if text not in self._whole:
            self._whole[text] = self._computed(text)
        return self._whole[text]

    def forget(self, text: tuple[int, ...]) -> None:
        """Free a prefix that is not needed any more; what it shares with others stays."""
        del self._whole[text]

    def _computed(self, text: tuple[int, ...]) -> Prefix:
        rows = self.model.prefix(text, self.voice, bos_count=self.bos_count, guided=self.guided)
        columns = self.model.text_columns(text, self.voice)
        blank = range(columns.start, columns.stop + 1, BLANK_PART)
        cuts = ([columns.start], blank)
        pairs = [self._begun(*each) for each in zip(rows, cuts, strict=False)]
        hidden, attention = self.model.backbone.prefill_beside(pairs, self.attention, last=1)
        cache = KeyValueCache.joined(self.model.config, [each for _, each in pairs])
        return Prefix(cache, self.model.logits(mx.concatenate(hidden)[:, 0]), attention)

    def _begun(self, rows: mx.array, cuts: Sequence[int]) -> tuple[mx.array, KeyValueCache]:
        """The last part of a sequence (L, D), as (1, rows, D), and a cache with all parts before it."""
        *shared, last = itertools.pairwise([0, *(cut for cut in cuts if cut < len(rows)), len(rows)])
        parts: list[Part] = []
        chain = b""
        for first, end in shared:
            part = rows[first:end]
            chain = hashlib.blake2b(chain + np.array(part.astype(mx.float32)).tobytes()).digest()
            if chain not in self._parts:
                self._parts[chain] = self._new_part(part, parts)
            parts.append(self._parts[chain])
        return rows[None, slice(*last)], KeyValueCache.of(self.model.config, 1, parts)

    def _new_part(self, rows: mx.array, before: Sequence[Part]) -> Part:
        """Keys and values of rows (L, D) that follow on parts."""
        cache = KeyValueCache.of(self.model.config, 1, before)
        start = cache.length
        self.model.backbone.prefill(rows[None], cache, last=1)
        return cache.since(start)
