"""The model of an engine, where the suite has it: what its recorded logits are compared with."""

from functools import cache
from typing import NamedTuple

from sampler.engines.base import Engine, Predicts
from sampler.engines.capabilities import analyzes, following, weights_of
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import Case
from sampler.run.session import Session


class KnownModel(NamedTuple):
    """What is known of an engine's model.

    model: predicts the logits, None if nobody can. name: for messages. analyzed: whether the engine has an alignment
    analyzer, None if that is not known.
    """

    model: Predicts | None
    name: str
    analyzed: bool | None


def known_model(session: Session, case: Case, engine: Engine) -> KnownModel:
    """The model of the engine of a case: the suite's own if the engine says that it runs it, else its own predict().

    An engine says so with the checksum of the weights, or with the name that our core has for them.
    """
    if type(engine) is not CoreEngine and claims_finch(engine):
        ours = following(finch(), case.variant, session.matrix.base_variant)
        assert isinstance(ours, CoreEngine)  # noqa: S101 - the core follows every variant
        own = analyzes(engine)
        return KnownModel(
            ours, f"{finch().info.name}, whose model it says it runs", ours.analyzes if own is None else own
        )
    if isinstance(engine, Predicts):
        return KnownModel(engine, "its own predict()", analyzes(engine))
    return KnownModel(None, "", analyzes(engine))


def claims_finch(engine: Engine) -> bool:
    """Whether an engine says that it runs Finch."""
    checksum, theirs = weights_of(engine), engine.info
    if checksum is None and not theirs.name.startswith("core:"):
        return False
    if checksum is not None:
        return checksum == finch().weights_checksum
    ours = finch().info
    return (theirs.name, theirs.vocab_size, theirs.bos_id) == (ours.name, ours.vocab_size, ours.bos_id)


@cache
def finch() -> CoreEngine:
    """The suite's core with Finch."""
    return CoreEngine.load(width=1)
