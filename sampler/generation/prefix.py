"""Everything before the speech, computed once for all requests of a block with the same text.

A sequence is cut into parts, and all parts but the last are cached: a part is computed once for all sequences with the
same rows up to its end. So the voice is computed once for all texts, and the unconditional rows, which have the
positions of a text without its words, once for the longest text. The cuts, and so the shapes of the matrix products,
depend only on the sequence itself: a request's result does not depend on its neighbours.
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
"""Positions per part of the unconditional text; less than that is computed again for each text."""


class Prefix(NamedTuple):
    """Voice, text and BOS. logits: of the first token, (rows, V). attention: of the last query.

    common: how many first positions of each row are, to the bit, those of every prefix that has so many in common.
    """

    cache: KeyValueCache
    common: Sequence[int]
    logits: mx.array
    attention: Sequence[mx.array]


class Prefixes:
    """The prefixes of a block's texts, with their shared parts. guided, bos_count: as in `T3.prefix`."""

    def __init__(
        self, model: T3, voice: Voice, attention: AttentionRequest, *, guided: bool, bos_count: int | None
    ) -> None:
        self.model, self.voice, self.attention = model, voice, attention
        self.guided, self.bos_count = guided, bos_count
        self._whole: dict[tuple[int, ...], Prefix] = {}
        self._parts: dict[bytes, Part] = {}

    def of(self, text: tuple[int, ...]) -> Prefix:
        """The prefix of a text, cached."""
        if text not in self._whole:
            self._whole[text] = self._computed(text)
        return self._whole[text]

    def forget(self, text: tuple[int, ...]) -> None:
        """Free a prefix that is no longer needed; its shared parts stay."""
        del self._whole[text]

    def _computed(self, text: tuple[int, ...]) -> Prefix:
        rows = self.model.prefix(text, self.voice, bos_count=self.bos_count, guided=self.guided)
        columns = self.model.text_columns(text, self.voice)
        blank = range(columns.start, columns.stop + 1, BLANK_PART)
        cuts = ([columns.start], blank)
        pairs = [self._begun(*pair) for pair in zip(rows, cuts, strict=False)]
        common = [cache.length for _, cache in pairs]
        hidden, attention = self.model.backbone.prefill_beside(pairs, self.attention, last=1)
        cache = KeyValueCache.joined(self.model.config, [pair for _, pair in pairs])
        return Prefix(cache, common, self.model.logits(mx.concatenate(hidden)[:, 0]), attention)

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
        """Keys and values of rows (L, D) after other parts."""
        cache = KeyValueCache.of(self.model.config, 1, before)
        start = cache.length
        self.model.backbone.prefill(rows[None], cache, last=1)
        return cache.since(start)
