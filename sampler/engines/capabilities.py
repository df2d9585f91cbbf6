"""What an engine can do beyond the protocols: the configs it supports, and what the suite can set up in it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig, is_default
from sampler.engines.arrays import plain_array
from sampler.engines.base import (
    Batch,
    Engine,
    EngineInfo,
    Generates,
    Generation,
    Processes,
    Request,
    call_process,
    takes_context,
)
from sampler.engines.generations import checked_generations
from sampler.engines.rules import DIALECTS, Rules
from sampler.errors import Unsupported
from sampler.stages import ALL_STAGES, NEUTRAL, OPTIONAL_STAGES, ROWS, STAGES, Stage

DEFAULT_SUPPORT = frozenset({*STAGES, "min_tokens_to_keep"})
"""The support of an engine that names nothing. Optional stages and parameters must be named, or engines written before
one existed would be blamed for ignoring it."""


DEFAULT = SamplingConfig()


def offered(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """Return the config as the engine gets it: in one of its own orders, if that is equivalent.

    An engine of one fixed order, which a dialect has too, gets the default order in its own. Stages that the order
    leaves out are off: a config that says both is contradictory. Raises Unsupported naming what is missing.
    """
    orders = orders_of(info)
    # A stage that the config's order leaves out must stay off in the longer order of the engine, too.
    config = config.without([stage for stage in ALL_STAGES if stage not in config.order])
    if "cfg" in config.active_stages() and not info.cfg:
        raise Unsupported(f"{info.name} has no guidance")
    named = frozenset() if info.orders == "any" else frozenset(stage for order in orders or () for stage in order)
    missing = sorted(_needed(config, DEFAULT_SUPPORT | named if info.supports is None else info.supports))
    if missing:
        raise Unsupported(f"{info.name} does not support {', '.join(missing)}")
    if orders is None or config.order in orders:
        return config
    same = [order for order in orders if _effective(order, config) == _effective(config.order, config)]
    if not same and len(orders) == 1 and is_default(config.order):
        same = [order for order in orders if config.active_stages() <= set(order)]
    if not same:
        raise Unsupported(f"{info.name} does not offer the order {'>'.join(config.order)}")
    return replace(config, order=same[0])


def orders_of(info: EngineInfo) -> tuple[tuple[Stage, ...], ...] | None:
    """The orders that an engine can run, None for any. One that names a dialect and no order has the dialect's."""
    if info.orders != "any":
        return info.orders
    dialect = DIALECTS.get(info.dialect or "")
    return None if dialect is None else (dialect.order,)


def in_its_words(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """The config without stages in its order that the engine does not name, all of which are off.

    `alignment` is the identity in `process` and `draw`, so that an engine that does not name it need not know it.
    """
    if orders_of(info) is not None:
        return config
    known = set(config.order) if info.supports is None else {stage for stage in ALL_STAGES if has_stage(info, stage)}
    lacking = {"cfg"} if not info.cfg else set()
    return replace(config, order=tuple(stage for stage in config.order if stage in known - lacking))


def needs_context(config: SamplingConfig, rules: Rules) -> str:
    """The stage that cannot run without the keyword `context`, which has prompt length, step, EOS ids and uniforms."""
    active = config.active_stages()
    prompt = rules.get("penalty_prompt")
    if prompt == "excluded" and "repetition_penalty" in active:
        return "repetition_penalty"
    if prompt != "included" and active & {"frequency_penalty", "presence_penalty"}:
        return min(active & {"frequency_penalty", "presence_penalty"})
    if "xtc_probability" in active and config.xtc_probability < 1:
        return "xtc_probability"
    return "min_new_tokens" if "min_new_tokens" in active else ""


def trimmed(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """The config without stages of the default order that the engine lacks, if two or more are left.

    So an engine without guidance is still tested with its other stages together. Optional stages that are off and that
    the engine does not name leave the order.
    """
    active = config.active_stages()
    unknown = {stage for stage in OPTIONAL_STAGES if stage not in active and not _names(info, stage)}
    config = replace(config, order=tuple(stage for stage in config.order if stage not in unknown))
    rest = reduced(info, config)
    return rest if len(rest.active_stages()) > 1 else config


def reduced(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """The config without stages of the default order that the engine lacks."""
    return config.without([stage for stage in STAGES if stage in config.active_stages() and not has_stage(info, stage)])


def _names(info: EngineInfo, stage: Stage) -> bool:
    """Whether an engine names an optional stage."""
    return info.supports is not None and bool(info.supports & {stage, *NEUTRAL[stage]})


def has_stage(info: EngineInfo, stage: Stage) -> bool:
    """Whether an engine names a stage, or names nothing; and its orders have it."""
    named = info.supports is None or bool(info.supports & {stage, *NEUTRAL[stage]})
    orders = orders_of(info)
    ordered = orders is None or any(stage in order for order in orders)
    return named and ordered and (stage != "cfg" or info.cfg)


def _needed(config: SamplingConfig, supports: frozenset[str]) -> set[str]:
    """Stages and parameters that a config uses and `supports`, which may name either, lacks."""
    active = config.active_stages()
    missing = {stage for stage in active if not supports & {stage, *NEUTRAL[stage]}}
    rows = [row for row in ROWS if row.name in active]
    shared = {name for row in rows for name in row.shared}
    own = {name for row in rows for name in row.values if name not in row.neutral}
    return missing | {name for name in (shared | own) - supports if getattr(config, name) != getattr(DEFAULT, name)}


def _effective(order: Sequence[str], config: SamplingConfig) -> list[str]:
    """The stages of an order that are on; `alignment` is the identity in `process`."""
    active: frozenset[Stage] = config.active_stages()
    return [stage for stage in order if stage in active]


def analyzes(engine: Engine) -> bool | None:
    """Whether the engine has an alignment analyzer; None if it does not say."""
    said: bool | None = getattr(engine, "analyzes", None)
    return said


def knows_context(engine: Processes) -> bool:
    """Whether `process` has the keyword `context`; an engine in a process of its own says so."""
    contexts: frozenset[str] | None = getattr(engine, "contexts", None)
    return takes_context(engine.process) if contexts is None else "process" in contexts


def process_rows(engine: Processes, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores (B, V) of `process`, and which rows it answered, bool (B,).

    An engine that raises is asked without empty histories, and one that raises for two rows is asked row by row. Raises
    what the engine does.
    """
    try:
        return _scores(engine, batch), np.ones(len(batch), dtype=np.bool_)
    except Unsupported:
        raise
    except Exception:
        rows = [row for row, ids in enumerate(batch.history) if len(ids)]
        if not rows or (len(rows) == len(batch) and (len(batch) == 1 or _answers(engine, batch.only(rows[:2])))):
            raise
        together = _answers(engine, batch.only(rows[:2]))
        parts = [rows] if together else [[row] for row in rows]
        found = np.concatenate([_scores(engine, batch.only(part)) for part in parts])
    answered = np.isin(np.arange(len(batch)), rows)
    scores = np.full((len(batch), found.shape[-1]), np.nan, dtype=np.float32)
    scores[answered] = found
    return scores, answered


def _scores(engine: Processes, batch: Batch) -> NDArray[np.float32]:
    scores = plain_array(call_process(engine, batch))
    if isinstance(scores, str):
        raise TypeError(f"process() gave {scores}")
    return scores.astype(np.float32)


def _answers(engine: Processes, batch: Batch) -> bool:
    try:
        return len(_scores(engine, batch)) == len(batch)
    except Exception:  # noqa: BLE001 - an engine may raise anything
        return False


def slots_of(engine: Engine) -> int | None:
    """The number of slots in a block of the engine, if requests can choose one; else None."""
    width: int | None = getattr(engine, "width", None)
    return width


def is_bitwise(engine: Engine) -> bool:
    """Whether equal requests give equal bits, whatever is generated with them, in any process."""
    return bool(getattr(engine, "bitwise", False))


def weights_of(engine: Engine) -> str | None:
    """SHA-256 of its weights, if it has one."""
    checksum: str | None = getattr(engine, "weights_checksum", None)
    return checksum


def layout_of(engine: Engine) -> str | None:
    """What its weights were recognised as, if they come from a file."""
    layout: str | None = getattr(engine, "weights_layout", None)
    return layout or None


def following(engine: Engine, variant: str, base: str) -> Engine:
    """The engine with the rules of a variant; an empty name means none.

    An engine that cannot change its rules is assumed to follow `base`, the variant of the matrix's first cell. Raises
    Unsupported for any other.
    """
    if not variant:
        return engine
    if hasattr(engine, "following"):
        changed: Engine = engine.following(variant)
        return changed
    if variant != base:
        raise Unsupported(f"{engine.info.name} cannot follow the variant {variant}")
    return engine


def recording(engine: Engine, *, logits: bool, attention: bool) -> Engine:
    """The engine with the given contents of its records, if it can set them; tokens do not change."""
    if not hasattr(engine, "recording"):
        return engine
    changed: Engine = engine.recording(logits=logits, attention=attention)
    return changed


def validate(engine: Engine, requests: Sequence[Request], processes: int = 1) -> None:
    """Raise what the engine finds wrong with requests or the number of processes, before anything is generated."""
    if hasattr(engine, "validate"):
        engine.validate(requests, processes)


def pieces_of(engine: Engine, request: Request) -> tuple[str, ...]:
    """Pieces of the text of a request, empty if the engine does not provide them."""
    pieces: tuple[str, ...] = engine.pieces(request) if hasattr(engine, "pieces") else ()
    return pieces


def generating(engine: Engine) -> Generates:
    """The engine as a generator. Raises Unsupported."""
    if not isinstance(engine, Generates):
        raise Unsupported(f"{engine.info.name} does not generate", hint="it has no generate()", reason="no_method")
    return engine


def generate(
    engine: Engine, requests: Sequence[Request], on_step: Callable[[int, int], None] = lambda tokens, finished: None
) -> list[Generation]:
    """Generate, and validate the answers.

    on_step gets the numbers of drawn tokens and finished requests, or only at the end if the engine does not take it.
    Raises Unsupported for an engine that does not generate, ValueError for invalid answers.
    """
    method: Callable[..., Sequence[Generation]] = generating(engine).generate
    if "on_step" in inspect.signature(method).parameters:
        return checked_generations(method(requests, on_step=on_step), requests, engine.info)
    generations = checked_generations(method(requests), requests, engine.info)
    for generation in generations:
        on_step(len(generation.tokens), 1)
    return generations
