"""Requests in, finished generations out: blocks of a fixed width over the shared core.

A block is a number of slots and a queue. A finished request leaves its slot to the next one at once. The width of the
matrix products never changes within a block, and the attention of a request covers its own cache and nothing else, so
that what a request gets does not depend on its neighbours (docs/decisions.md, "Blocks").
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.chain.bias import check_ids
from sampler.chain.draw import pick
from sampler.chain.measure import Measures, measure
from sampler.chain.noise import NoiseKey
from sampler.chain.past import Past
from sampler.chain.pipeline import Scores, find_problems, penalized_tokens, run_rows
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, TextError
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.config import T3Config

StopReason = Literal["eos", "forced_eos", "length", "error"]
Noise = Callable[[int], NDArray[np.float32]]
Chain = Callable[..., Scores]  # as `run_rows`; the past of the rows comes only where further knobs are on


@dataclass(frozen=True)
class Request:
    """One text to speak. prompt: text, or ids as the tokenizer gives them. noise: step -> Gumbel noise (V,).

    Without noise the suite's own for (seed, "", 0) is used. slot: the slot that must serve it, or None for any.
    coin: step -> uniform number in (0, 1), for XTC; without it the suite's own as well.
    """

    prompt: str | tuple[int, ...]
    config: SamplingConfig
    seed: int
    max_new_tokens: int
    noise: Noise | None = None
    language: str = "en"
    slot: int | None = None
    coin: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Record:
    """What happened at each of T steps. logprob, entropy (nats), margin: float32 (T,); rank: int32 (T,).

    logits: float32 (T, 2, V), conditional then unconditional, (T, 1, V) without guidance; None unless asked for.
    attention: float32 (pairs, T, S), the aligned heads' attention over the text; None unless asked for.
    flags: of the alignment analyzer, by step. slot, width: where it was computed. error: why it stopped, if it did.
    guided: whether guidance took part; Turbo and Nano skip `cfg_weight`, as upstream does. None: nobody says.
    """

    logprob: NDArray[np.float32]
    rank: NDArray[np.int32]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    slot: int
    width: int
    logits: NDArray[np.float32] | None = None
    attention: NDArray[np.float32] | None = None
    flags: tuple[str, ...] = ()
    error: str = ""
    guided: bool | None = None


@dataclass(frozen=True)
class Generation:
    """tokens: without BOS, with EOS iff stop_reason is eos or forced_eos."""

    tokens: tuple[int, ...]
    stop_reason: StopReason
    record: Record | None = None


@dataclass
class _Slot:
    """A request in flight. logits: of the next token, (rows, V)."""

    index: int
    place: int
    request: Request
    noise: Noise
    cache: KeyValueCache
    text: slice
    logits: mx.array
    seen: NDArray[np.bool_]
    attention: list[mx.array]
    tokens: list[int] = field(default_factory=list)
    measures: list[tuple[float, int, float, float]] = field(default_factory=list)
    kept_logits: list[NDArray[np.float32]] = field(default_factory=list)
    kept_attention: list[NDArray[np.float32]] = field(default_factory=list)
    stop_reason: StopReason | None = None
    error: str = ""


@dataclass(frozen=True)
class Generator:
    """Generates with one checkpoint. width: slots of a block. bos_count: BOS rows of the prefix; None: as upstream.

    chain: logits to scores, exchangeable so that a wrong chain can be put under the checks.
    """

    checkpoint: Checkpoint
    width: int = 16
    bos_count: int | None = None
    keep_logits: bool = False
    keep_attention: bool = False
    chain: Chain = run_rows

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width = {self.width} slots", hint="expected 1 or more")
        if self.bos_count not in (None, 1, 2):
            raise ConfigError(f"bos_count = {self.bos_count}", hint="expected 1 or 2")

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[int, int], None] = lambda tokens, finished: None
    ) -> list[Generation]:
        """Serve all requests; the answers stand in the order of the requests.

        on_step gets, after each step, how many tokens were drawn and how many requests were finished in it.
        Raises TextError and ConfigError before anything is generated.
        """
        prompts, config = self.check(requests), self.checkpoint.config
        answers: dict[int, Generation] = {}
        for guided in (True, False):
            queue = deque(index for index, each in enumerate(requests) if is_guided(each.config, config) == guided)
            if queue:
                answers |= _Block(self, requests, prompts, guided=guided).run(queue, on_step)
        return [answers[index] for index in range(len(requests))]

    def check(self, requests: Sequence[Request]) -> list[tuple[int, ...]]:
        """Text ids of all requests; raises TextError or ConfigError for the first one that cannot be served."""
        for request in requests:
            self._check(request)
        return [self._text(request) for request in requests]

    def _text(self, request: Request) -> tuple[int, ...]:
        if isinstance(request.prompt, str):
            return tuple(self.checkpoint.tokenizer.encode(request.prompt, request.language))
        if not request.prompt:
            raise TextError("the prompt has no ids", hint="give ids as the tokenizer does")
        self.checkpoint.model.check_text(request.prompt)
        return tuple(request.prompt)

    def _check(self, request: Request) -> None:
        check_ids([request.config], self.checkpoint.config.speech_vocab_size)
        most = self.checkpoint.config.speech_positions
        if not 1 <= request.max_new_tokens <= most:
            hint = f"expected 1 to {most}, as many as {self.checkpoint.config.name} has speech positions"
            raise ConfigError(f"max_new_tokens = {request.max_new_tokens}", hint=hint)
        if request.slot is not None and not 0 <= request.slot < self.width:
            raise ConfigError(f"slot = {request.slot}", hint=f"expected 0 to {self.width - 1}")


def is_guided(config: SamplingConfig, model: T3Config) -> bool:
    """Whether a request needs unconditional logits: with weight 0, c + 0 (c - u) is c, to the last bit."""
    return model.guidance and "cfg" in config.active_stages()


class _Block:
    """One block: slots of one kind, with or without guidance."""

    def __init__(
        self, generator: Generator, requests: Sequence[Request], prompts: Sequence[tuple[int, ...]], *, guided: bool
    ) -> None:
        self.generator, self.requests, self.prompts = generator, requests, prompts
        self.guided, self.rows = guided, 2 if guided else 1
        self.model = generator.checkpoint.model
        self.attention = AttentionRequest(self.model.config.aligned_heads if generator.keep_attention else ())

    def run(self, queue: deque[int], on_step: Callable[[int, int], None]) -> dict[int, Generation]:
        """Serve the queue; returns the generations by index of request."""
        slots: list[_Slot | None] = [None] * self.generator.width
        answers: dict[int, Generation] = {}
        while True:
            slots = [slot or self._admit(queue, place) for place, slot in enumerate(slots)]
            active = [slot for slot in slots if slot is not None]
            if not active:
                return answers
            self._draw(active)
            finished = [slot for slot in active if slot.stop_reason is not None]
            for slot in finished:
                answers[slot.index] = self._generation(slot)
                slots[slot.place] = None
            on_step(len(active), len(finished))
            if any(slots):
                self._step(slots)

    def _admit(self, queue: deque[int], place: int) -> _Slot | None:
        """Give a free slot the first waiting request that may use it, and prefill it."""
        index = next((waiting for waiting in queue if self.requests[waiting].slot in (None, place)), None)
        if index is None:
            return None
        queue.remove(index)
        request, text = self.requests[index], self.prompts[index]
        config, voice = self.model.config, self.generator.checkpoint.voice
        cache = KeyValueCache(config, self.rows)
        prefix = self.model.prefix(text, voice, bos_count=self.generator.bos_count, guided=self.guided)
        hidden, attention = self.model.backbone.prefill(prefix, cache, self.attention)
        seen = np.zeros(config.speech_vocab_size, dtype=np.bool_)
        seen[config.bos_id] = True  # BOS is part of the history that upstream penalises
        return _Slot(
            index=index,
            place=place,
            request=request,
            noise=request.noise or partial(NoiseKey(request.seed).gumbel, vocab_size=config.speech_vocab_size),
            cache=cache,
            text=self.model.text_columns(text, voice),
            logits=self.model.logits(hidden[:, -1]),
            seen=seen,
            attention=attention,
        )

    def _draw(self, active: Sequence[_Slot]) -> None:
        """Draw the next token of every active slot and note what it looked like."""
        configs = [slot.request.config for slot in active]
        logits = mx.stack([slot.logits for slot in active])
        uncond = logits[:, 1] if self.guided else None
        seen, past = self._past(active, configs)
        known = [logits[:, 0], mx.array(seen), configs, uncond]
        scores = self.generator.chain(*known) if past is None else self.generator.chain(*known, past)
        gumbel = mx.array(np.stack([slot.noise(len(slot.tokens)) for slot in active]))
        tokens = pick(scores.final, gumbel)
        measures = measure(scores, gumbel, tokens, mx.array([config.greedy for config in configs]))
        problems = find_problems(logits[:, 0], scores.final, uncond)
        attention = [row for slot in active for row in slot.attention]
        mx.eval(tokens, problems, *measures, *attention, *(array for slot in active for array in slot.cache.arrays()))
        self._note(active, np.array(tokens), np.array(problems), measures)
        if self.generator.keep_logits:
            for slot, rows in zip(active, np.array(logits), strict=True):
                if slot.stop_reason != "error":
                    slot.kept_logits.append(rows)

    def _past(self, active: Sequence[_Slot], configs: list[SamplingConfig]) -> tuple[NDArray[np.bool_], Past | None]:
        """What the penalty sees, (B, V), and the past of the rows where further knobs look back on it, else None."""
        if not any(config.looks_back for config in configs):
            return np.stack([slot.seen for slot in active]), None
        histories = [[self.model.config.bos_id, *slot.tokens] for slot in active]
        coins = [(slot.request.coin or NoiseKey(slot.request.seed).coin)(len(slot.tokens)) for slot in active]
        past = Past.of(histories, prompt_length=1, eos_ids=[self.model.config.eos_id], coins=coins)
        return penalized_tokens(past, configs, self.model.config.speech_vocab_size), past

    def _note(
        self, active: Sequence[_Slot], tokens: NDArray[np.int32], problems: NDArray[np.int32], measures: Measures
    ) -> None:
        columns = [np.array(column).tolist() for column in measures]
        for slot, token, problem, *values in zip(active, tokens.tolist(), problems.tolist(), *columns, strict=True):
            if problem:
                slot.stop_reason = "error"
                slot.error = "NaN or +inf in the logits" if problem == 1 else "no token was left after the chain"
                continue
            slot.tokens.append(token)
            slot.seen[token] = True
            slot.measures.append(tuple(values))
            if self.generator.keep_attention:
                slot.kept_attention.append(np.stack([np.array(rows[-1, slot.text]) for rows in slot.attention]))
            if token == self.model.config.eos_id:
                slot.stop_reason = "eos"
            elif len(slot.tokens) == slot.request.max_new_tokens:
                slot.stop_reason = "length"

    def _step(self, slots: Sequence[_Slot | None]) -> None:
        """Feed every slot's last token; idle slots go through the matrix products as token 0."""
        tokens = np.repeat([0 if slot is None else slot.tokens[-1] for slot in slots], self.rows)
        positions = np.repeat([0 if slot is None else len(slot.tokens) for slot in slots], self.rows)
        embeddings = self.model.embed_speech(tokens.tolist(), positions.tolist())
        caches = [None if slot is None else slot.cache for slot in slots]
        hidden, attention = self.model.backbone.step(embeddings, caches, self.rows, self.attention)
        logits = self.model.logits(hidden)
        for slot in slots:
            if slot is not None:
                slot.logits = logits[slot.place * self.rows : (slot.place + 1) * self.rows]
                slot.attention = attention[slot.place]

    def _generation(self, slot: _Slot) -> Generation:
        logprob, rank, entropy, margin = zip(*slot.measures, strict=True) if slot.measures else ((),) * 4
        record = Record(
            logprob=np.array(logprob, dtype=np.float32),
            rank=np.array(rank, dtype=np.int32),
            entropy=np.array(entropy, dtype=np.float32),
            margin=np.array(margin, dtype=np.float32),
            slot=slot.place,
            width=self.generator.width,
            logits=np.stack(slot.kept_logits) if slot.kept_logits else None,
            attention=np.stack(slot.kept_attention, axis=1) if slot.kept_attention else None,
            error=slot.error,
            guided=self.guided,
        )
        return Generation(tuple(slot.tokens), slot.stop_reason or "error", record)
