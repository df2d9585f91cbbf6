"""The optional stages that `transformers` has, called row by row if they use ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sampler.errors import ConfigError
from sampler.requests import Batch
from sampler.stages import Stage

if TYPE_CHECKING:
    import torch

OPTIONAL_PROCESSORS: Final = (
    "MinNewTokensLengthLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "SequenceBiasLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "TypicalLogitsWarper",
)


LARGEST_ID: Final = 2**62
"""Fits into a tensor, and no vocabulary is that large."""


def by_row(processor: Any, scores: "torch.Tensor", ids: Sequence[Sequence[int]]) -> "torch.Tensor":
    """Call a processor with the ids of one row at a time, since rows differ in length."""
    result: torch.Tensor = scores.clone()
    for row, tokens in enumerate(ids):
        given = _unread(scores[:1]).new_tensor([[min(token, LARGEST_ID) for token in tokens]])
        result[row] = processor(given, scores[row : row + 1])[0]
    return result


def _bias(scores: "torch.Tensor", batch: Batch, processors: Any) -> Any:
    bias = {(token,): value for token, value in batch.config.logit_bias.items()}
    if not bias:
        return scores
    _check_ids("logit_bias", batch.config.logit_bias, scores)
    return processors.SequenceBiasLogitsProcessor(bias)(_unread(scores), scores)


def _ngrams(scores: "torch.Tensor", batch: Batch, processors: Any) -> Any:
    size = batch.config.no_repeat_ngram_size
    return by_row(processors.NoRepeatNGramLogitsProcessor(size), scores, batch.history) if size else scores


def _min_new(scores: "torch.Tensor", batch: Batch, processors: Any) -> Any:
    least, context = batch.config.min_new_tokens, batch.context
    if not least:
        return scores
    if context is None or not context.eos_ids:
        raise ConfigError(f"min_new_tokens = {least} and no EOS id is known", hint="give eos_ids")
    processor = processors.MinNewTokensLengthLogitsProcessor(0, least, list(context.eos_ids))
    return by_row(processor, scores, [[0] * int(step) for step in context.step])  # only the number of ids is used


def _suppress(scores: "torch.Tensor", batch: Batch, processors: Any) -> Any:
    ids = batch.config.suppressed_tokens
    _check_ids("suppressed_tokens", ids, scores)
    return processors.SuppressTokensLogitsProcessor(ids)(_unread(scores), scores) if ids else scores


def _typical(scores: "torch.Tensor", batch: Batch, processors: Any) -> Any:
    mass, least = batch.config.typical_p, batch.config.min_tokens_to_keep
    if mass == 1:
        return scores
    return processors.TypicalLogitsWarper(mass, min_tokens_to_keep=least)(_unread(scores), scores)


def _unread(scores: "torch.Tensor") -> Any:
    """Ids for processors that ignore them."""
    return scores.new_zeros((len(scores), 0)).long()


def _check_ids(name: str, ids: Any, scores: "torch.Tensor") -> None:
    if max(ids, default=0) >= scores.shape[-1]:
        raise ConfigError(f"{name} names the id {max(ids)}", hint=f"the vocabulary has {scores.shape[-1]} ids")


OPTIONAL: Final[Mapping[Stage, Callable[["torch.Tensor", Batch, Any], Any]]] = {
    "logit_bias": _bias,
    "no_repeat_ngram_size": _ngrams,
    "min_new_tokens": _min_new,
    "suppressed_tokens": _suppress,
    "typical_p": _typical,
}
"""transformers lacks the other optional stages."""
