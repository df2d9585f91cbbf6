"""One block: a fixed number of slots and a queue. A finished request frees its slot for the next one at once.

The width of the matrix products is constant within a block, and the attention of a request covers only its own cache,
so a request's result does not depend on its neighbours (docs/decisions.md, "Blocks").
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.alignment import AlignmentStreamAnalyzer, Decisions, crash_message
from sampler.chain.draw import draw_rows
from sampler.chain.history import read_history
from sampler.chain.measure import Measures
from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.chain.pipeline import find_problems
from sampler.config import SamplingConfig
from sampler.generation.prefix import Prefixes
from sampler.generation.settings import Settings
from sampler.generation.slot import Slot
from sampler.requests import Batch, Generation, Request
from sampler.runtime import blas
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import SeparateCaches

if TYPE_CHECKING:
    from sampler.t3.slot_cache import SlotCache

PROBLEMS = ("", "NaN or +inf in the logits", "no token was left after the chain")
"""Messages for the codes of `find_problems`."""


class Block:
    """Slots of one kind: with or without guidance, with or without an analyzer."""

    def __init__(
        self,
        settings: Settings,
        requests: Sequence[Request],
        prompts: Sequence[tuple[int, ...]],
        *,
        guided: bool,
        analyzed: bool,
    ) -> None:
        self.settings, self.requests, self.prompts = settings, requests, prompts
        self.guided, self.rows = guided, 2 if guided else 1
        self.model = settings.checkpoint.model
        heads = self.model.config.aligned_heads if settings.keep_attention or analyzed else ()
        self.attention = AttentionRequest(heads)
        self.cache: SlotCache | None = None
        self.analyzer: AlignmentStreamAnalyzer | None = None
        if analyzed and settings.analyzer is not None:
            eos_id = self.model.config.eos_id
            self.analyzer = AlignmentStreamAnalyzer(settings.analyzer, settings.width, eos_id)

    def run(self, queue: deque[int], on_step: Callable[[int, int], None]) -> dict[int, Generation]:
        """Serve the queue; return the generations by index of request."""
        answers: dict[int, Generation] = {}
        self.cache = self._slot_cache(queue)
        slots = [self._admit(queue, place) for place in range(self.settings.width)]
        while any(slots):
            active = [slot for slot in slots if slot is not None]
            self._draw(active)
            finished = [slot for slot in active if slot.stop_reason is not None]
            for slot in finished:
                answers[slot.index] = slot.generation(self.settings.width, guided=self.guided)
                slots[slot.place] = None
                if self.cache is not None:
                    self.cache.release(slot.place)
            on_step(len(active), len(finished))
            if any(slots):
                self._step(slots)
            for slot in finished:
                slots[slot.place] = self._admit(queue, slot.place)
        return answers

    @cached_property
    def prefixes(self) -> Prefixes:
        """The computed prefixes of all texts."""
        voice, bos_count = self.settings.checkpoint.voice, self.settings.bos_count
        return Prefixes(self.model, voice, self.attention, guided=self.guided, bos_count=bos_count)

    def _slot_cache(self, queue: Iterable[int]) -> "SlotCache | None":
        """A cache for the longest request of the queue in every slot, if the kernel can be used."""
        if self.settings.attention != "auto" or not self.model.compiled:
            return None
        from sampler.t3.slot_cache import SlotCache

        capacity = max(self.settings.positions(self.requests[index], self.prompts[index]) for index in queue)
        return SlotCache(self.model.config, self.settings.width, self.rows, capacity, blas.threads())

    def _admit(self, queue: deque[int], place: int) -> Slot | None:
        """Give a free slot the first waiting request that may use it, with its prefix."""
        index = next((waiting for waiting in queue if self.requests[waiting].slot in (None, place)), None)
        if index is None:
            return None
        queue.remove(index)
        request, text = self.requests[index], self.prompts[index]
        config = self.model.config
        prefix = self.prefixes.of(text)
        if not any(self.prompts[waiting] == text for waiting in queue):
            self.prefixes.forget(text)
        if self.cache is not None:
            self.cache.fill(place, prefix.cache, prefix.common)
        seen = np.zeros(config.speech_vocab_size, dtype=np.bool_)
        seen[config.bos_id] = self.settings.penalty_history != "generated"
        if self.analyzer is not None:
            self.analyzer.start(place, len(text))
        return Slot(
            index=index,
            place=place,
            request=request,
            noise=request.noise or RequestNoise(NoiseKey(request.seed), config.speech_vocab_size),
            cache=prefix.cache.copy() if self.cache is None else None,
            text=self.model.text_columns(text, self.settings.checkpoint.voice),
            logits=prefix.logits,
            seen=seen,
            attention=prefix.attention,
        )

    def _draw(self, active: Sequence[Slot]) -> None:
        """Draw the next token of every active slot and record its measures."""
        configs = [slot.request.config for slot in active]
        logits = mx.stack([slot.logits for slot in active])
        cond, uncond = logits[:, 0], logits[:, 1] if self.guided else None
        decisions = self._decide(active)
        batch = self._batch(active, configs, cond, uncond)
        scores = self.settings.chain(batch) if decisions is None else self.settings.chain(batch, decisions)
        drawn = draw_rows(
            scores,
            [slot.noise for slot in active],
            [len(slot.tokens) for slot in active],
            np.array([config.greedy for config in configs]),
        )
        problems = find_problems(cond, scores.final, uncond)
        mx.eval(*(array for slot in active for array in slot.arrays()))
        faults = [PROBLEMS[problem] for problem in problems.tolist()]
        self._note(active, drawn.tokens, faults, drawn.measures, decisions)
        if self.settings.keep_logits:
            for slot, rows in zip(active, np.array(logits), strict=True):
                if slot.stop_reason != "error":
                    slot.kept_logits.append(rows)

    def _decide(self, active: Sequence[Slot]) -> Decisions | None:
        """The analyzer's decisions for this step, if there is one: it reads the attention before the token is drawn."""
        if self.analyzer is None:
            return None
        mx.eval(*(rows for slot in active for rows in slot.attention if isinstance(rows, mx.array)))
        attention = [slot.text_attention() for slot in active]
        tokens = [slot.tokens[-1] if slot.tokens else self.model.config.bos_id for slot in active]
        return self.analyzer.step([slot.place for slot in active], attention, tokens)

    def _batch(self, active: Sequence[Slot], configs: list[SamplingConfig], cond: Any, uncond: Any) -> Batch:
        """The rows of a step; with their history only if a parameter needs it."""
        if not any(config.looks_back for config in {id(config): config for config in configs}.values()):
            return Batch(cond, (), configs, uncond, seen=np.stack([slot.seen for slot in active]))
        rule, bos_id = self.settings.penalty_history, self.model.config.bos_id
        histories = [slot.history(rule, bos_id) for slot in active]
        given = [len(history) - len(slot.tokens) for history, slot in zip(histories, active, strict=True)]
        uniforms = [(slot.request.uniform or NoiseKey(slot.request.seed).uniform)(len(slot.tokens)) for slot in active]
        eos_ids = [self.model.config.eos_id]
        ids, context = read_history(histories, prompt_length=given, eos_ids=eos_ids, uniforms=uniforms)
        return Batch(cond, ids, configs, uncond, context)

    def _note(
        self,
        active: Sequence[Slot],
        tokens: NDArray[np.int64],
        faults: Sequence[str],
        measures: Measures,
        decisions: Decisions | None,
    ) -> None:
        columns = [column.tolist() for column in measures]
        settings, config = self.settings, self.model.config
        for row, (slot, token, fault, *values) in enumerate(
            zip(active, tokens.tolist(), faults, *columns, strict=True)
        ):
            if decisions is not None and decisions.crashed[row]:
                slot.fail(crash_message(len(self.prompts[slot.index])))
            elif fault:
                slot.fail(fault)
            if slot.error:
                continue
            slot.draw(token, settings.penalty_history, config.bos_id)
            slot.measures.append(tuple(values))
            if decisions is not None:
                slot.flags.append(decisions.flags(row))
            if settings.keep_attention:
                slot.kept_attention.append(np.stack(slot.text_attention()))
            if token == config.eos_id and (len(slot.tokens) > 1 or settings.first_token_ends):
                slot.stop_reason = "forced_eos" if decisions is not None and decisions.forced[row] else "eos"
            elif len(slot.tokens) == slot.request.max_new_tokens + settings.beyond_cap:
                slot.stop_reason = "length"

    def _step(self, slots: Sequence[Slot | None]) -> None:
        """Feed every slot's last token; idle slots take part in the matrix products as token 0."""
        tokens = np.repeat([0 if slot is None else slot.tokens[-1] for slot in slots], self.rows)
        positions = np.repeat([0 if slot is None else len(slot.tokens) for slot in slots], self.rows)
        embeddings = self.model.embed_speech(tokens.tolist(), positions.tolist())
        separate = [None if slot is None else slot.cache for slot in slots]
        cache = self.cache or SeparateCaches(self.model.config, separate, self.rows)
        hidden, attention = self.model.backbone.step(embeddings, cache, self.attention)
        logits = self.model.logits(hidden)
        for slot in slots:
            if slot is not None:
                slot.logits = logits[slot.place * self.rows : (slot.place + 1) * self.rows]
                slot.attention = attention[slot.place] if attention else []
