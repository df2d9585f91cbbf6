"""What an engine can do beyond the protocols: the configs it supports, and what the suite can set up in it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace

from sampler.config import SamplingConfig, is_default
from sampler.engines.base import Engine, EngineInfo, Generates, Generation, Request
from sampler.engines.generations import checked_generations
from sampler.errors import Unsupported
from sampler.stages import NEUTRAL, OPTIONAL_STAGES, ROWS, STAGES, Stage

DEFAULT_SUPPORT = frozenset({*STAGES, "min_tokens_to_keep", "cfg_convention"})
"""The support of an engine that names nothing. Optional stages must be named, or engines written before a stage
existed would be blamed for ignoring it."""


DEFAULT = SamplingConfig()


def offered(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """Return the config as the engine gets it: in one of its own orders, if that is equivalent.

    An engine of one fixed order gets the default order in its own. Raises Unsupported naming what is missing.
    """
    if "cfg" in config.active_stages() and not info.cfg:
        raise Unsupported(f"{info.name} has no guidance")
    named = frozenset() if info.orders == "any" else frozenset(stage for order in info.orders for stage in order)
    missing = sorted(_needed(config, DEFAULT_SUPPORT | named if info.supports is None else info.supports))
    if missing:
        raise Unsupported(f"{info.name} does not support {', '.join(missing)}")
    if info.orders == "any" or config.order in info.orders:
        return config
    same = [order for order in info.orders if _effective(order, config) == _effective(config.order, config)]
    if not same and len(info.orders) == 1 and is_default(config.order):
        same = [order for order in info.orders if config.active_stages() <= set(order)]
    if not same:
        raise Unsupported(f"{info.name} does not offer the order {'>'.join(config.order)}")
    # A stage that the config's order leaves out must stay off in the longer order of the engine.
    idle = config.without([stage for stage in STAGES if stage not in config.order])
    return replace(idle, order=same[0])


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
    ordered = info.orders == "any" or any(stage in order for order in info.orders)
    return named and ordered and (stage != "cfg" or info.cfg)


def _needed(config: SamplingConfig, supports: frozenset[str]) -> set[str]:
    """Stages and parameters that a config uses and `supports`, which may name either, lacks."""
    active = config.active_stages()
    missing = {stage for stage in active if not supports & {stage, *NEUTRAL[stage]}}
    shared = {name for row in ROWS if row.name in active for name in row.shared}
    return missing | {name for name in shared - supports if getattr(config, name) != getattr(DEFAULT, name)}


def _effective(order: Sequence[str], config: SamplingConfig) -> list[str]:
    """The stages of an order that are on; `alignment` is the identity in `process`."""
    active: frozenset[Stage] = config.active_stages()
    return [stage for stage in order if stage in active]


def analyzes(engine: Engine) -> bool | None:
    """Whether the engine has an alignment analyzer; None if it does not say."""
    said: bool | None = getattr(engine, "analyzes", None)
    return said


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
