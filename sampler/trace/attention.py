"""The attention of one run to its text: where the model was reading when it drew each token."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.config import SamplingConfig
from sampler.engines.base import Engine, EngineError, Generation, Request, StopReason
from sampler.engines.capabilities import generate, generating, offered, pieces_of, recording
from sampler.engines.load import load_engine
from sampler.engines.registry import known_engines
from sampler.errors import SamplerError, Unsupported


@dataclass(frozen=True)
class AttentionTrace:
    """A run with its attention: (T, S), the mean of the aligned heads; row t belongs to the step that drew tokens[t].

    pieces: the S pieces of the text from the tokenizer, or empty for an engine that does not provide them. flags: of
    the alignment analyzer, one entry per step, or empty without one.
    """

    tokens: tuple[int, ...]
    stop_reason: StopReason
    attention: NDArray[np.float32]
    pieces: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def load(name: str | None, weights: Path | None) -> Engine:
    """The engine to inspect; without a name the core with a block of one slot.

    Raises EngineError, also for weights with another engine.
    """
    if weights is not None and not (name or "core").startswith("core"):
        raise EngineError(f"--weights goes with the core, not with {name!r}", hint="leave one of them out")
    return load_engine(name or "core", known_engines(weights, 1))


def suite_request(
    engine: Engine, text: str, config: SamplingConfig, seed: int, max_new_tokens: int, language: str
) -> Request:
    """A request with the suite's noise, which an engine with its own generator may ignore."""
    key, size = NoiseKey(seed), engine.info.vocab_size
    noise = None if size is None else RequestNoise(key, size)
    return Request(text, config, seed, max_new_tokens, noise=noise, language=language, uniform=key.uniform)


def trace_attention(engine: Engine, request: Request) -> AttentionTrace:
    """Generate one request and record the attention of the aligned heads to the text.

    The core records it on request, which changes no token. Raises Unsupported for an engine that does not generate or
    records no attention, EngineError for an invalid answer.
    """
    request = replace(request, config=offered(generating(engine).info, request.config))
    if getattr(engine, "records_attention", True) is False:
        raise Unsupported(f"{engine.info.name} has no aligned heads", hint="its attention follows no text")
    engine = recording(engine, logits=False, attention=True)
    return attention_in(engine, request, _generate(engine, request))


def attention_in(engine: Engine, request: Request, generation: Generation) -> AttentionTrace:
    """The recorded attention of a generation. Raises as `trace_attention`."""
    name, record = engine.info.name, generation.record
    if not generation.tokens:
        raise EngineError(f"{name} drew no token", hint=(record and record.error) or generation.stop_reason)
    if record is None or record.attention is None:
        raise Unsupported(f"{name} records no attention", hint="Record.attention has it, (pairs, steps, text)")
    attention = np.asarray(record.attention, dtype=np.float32)
    count = len(generation.tokens)
    if attention.ndim != 3 or attention.shape[1] != count or 0 in attention.shape:
        raise EngineError(
            f"{name} recorded attention of shape {attention.shape} for {count} tokens", hint="(pairs, steps, text)"
        )
    if len(record.flags) not in (0, count):
        raise EngineError(f"{name} recorded {len(record.flags)} flags for {count} tokens", hint="one entry a step")
    pieces = pieces_of(engine, request)
    fitting = pieces if len(pieces) == attention.shape[2] else ()
    return AttentionTrace(generation.tokens, generation.stop_reason, attention.mean(axis=0), fitting, record.flags)


def _generate(engine: Engine, request: Request) -> Generation:
    try:
        return generate(engine, [request])[0]
    except SamplerError:
        raise
    except (Exception, SystemExit) as error:
        raise EngineError(f"{engine.info.name} failed: {type(error).__name__}: {error}", hint="run it alone") from error
