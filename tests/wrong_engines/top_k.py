"""Wrong in top_k, and where filters exclude each other."""

import numpy as np

from .chain import STAGES, Array, Call, keep, order, ranked, top_k, unchanged
from .engines import stage_at, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows

TIES = example([[1.0, 2.0, 2.0, 2.0, 0.0, -1.0, 3.0]], top_k=2)
APART = example(np.concatenate([spread(), spread() - 6]), top_k=5)
SPARING = example(top_k=2, min_tokens_to_keep=6)


wrong_rows(
    "top_k",
    "top_k_without_effect: top_k is accepted and ignored [P05].",
    lambda: with_stage(top_k=unchanged),
    "top_k_0_is_greedy: top_k = 0, which is off, keeps one token [T06].",
    lambda: with_config(lambda config: replace_config(config, top_k=config.top_k or 1)),
    example(top_k=0),
    {"also": ("temperature",)},
    "top_k_0_is_50: top_k = 0, which is off, is taken as a default of 50 [T06].",
    lambda: with_config(lambda config: replace_config(config, top_k=config.top_k or 50)),
    example(spread(101), top_k=0),
    "top_k_1_is_off: for k = 1 the slice of the k-th value is empty and nothing is filtered [T07].",
    lambda: with_config(lambda config: replace_config(config, top_k=0 if config.top_k == 1 else config.top_k)),
    example(top_k=1),
)


@wrong("top_k", example(top_k=1), also=("purity",), of=stage_at("top_k"))
def top_k_1_fails(scores: Array, call: Call) -> Array:
    """Fault: for k = 1 the slice of the k-th value is empty and cannot be broadcast [T07]."""
    k = min(call.config.top_k, scores.shape[-1])
    return keep(scores, scores >= np.sort(scores, axis=-1)[:, -k : -k + 1 if k > 1 else -scores.shape[-1]])


wrong_rows(
    "top_k",
    "top_k_keeps_one_less: k - 1 tokens are kept [T07].",
    lambda: with_stage(top_k=top_k(lambda call: max(call.config.top_k - 1, call.config.min_tokens_to_keep))),
    "top_k_keeps_one_more: k + 1 tokens are kept [T07].",
    lambda: with_stage(top_k=top_k(lambda call: max(call.config.top_k + 1, call.config.min_tokens_to_keep))),
)


@wrong("top_k", TIES, of=stage_at("top_k"))
def top_k_keeps_exactly_k(scores: Array, call: Call) -> Array:
    """Fault: of several tokens that tie with the k-th only some are kept, so that there are k [T09]."""
    k = max(call.config.top_k, call.config.min_tokens_to_keep)
    return keep(scores, np.argsort(order(scores), axis=-1) < k)


@wrong("top_k", TIES, of=stage_at("top_k"))
def top_k_drops_what_ties(scores: Array, call: Call) -> Array:
    """Fault: only scores above the next one are kept, so ties at the edge, or a row of equals, go altogether [N23]."""
    k = max(call.config.top_k, call.config.min_tokens_to_keep)
    if k >= scores.shape[-1]:
        return scores
    return keep(scores, scores > ranked(scores, k + 1))


wrong_rows(
    "top_k",
    "top_k_forgets_min_tokens_to_keep: top_k keeps k tokens even where min_tokens_to_keep is larger [N16].",
    lambda: with_stage(top_k=top_k(lambda call: call.config.top_k)),
    SPARING,
    "top_k_adds_min_tokens_to_keep: top_k keeps k tokens and min_tokens_to_keep - 1 others [N16].",
    lambda: with_stage(top_k=top_k(lambda call: call.config.top_k + call.config.min_tokens_to_keep - 1)),
    example(top_k=4, min_tokens_to_keep=3),
)


@wrong("top_k", example(top_k=30), also=("purity",), of=stage_at("top_k"))
def top_k_beyond_the_vocabulary_fails(scores: Array, call: Call) -> Array:
    """Fault: a k larger than the vocabulary is an error [T07]."""
    if call.config.top_k > scores.shape[-1]:
        raise ValueError(f"kth={call.config.top_k} is out of range")
    return STAGES["top_k"](scores, call)


@wrong("top_k", example(spread(1001), top_k=400))
def top_k_is_at_most_256():
    """Fault: k is silently capped by the size of a buffer [T06]."""
    return with_stage(top_k=top_k(lambda call: max(min(call.config.top_k, 256), call.config.min_tokens_to_keep)))


@wrong("top_k", example(np.sort(spread(101)), top_k=7), of=stage_at("top_k"))
def top_k_skips_the_rest_of_a_block(scores: Array, call: Call) -> Array:
    """Fault: what lies beyond the last multiple of 32 entries is not read, and never kept [S07]."""
    size = scores.shape[-1]
    if size < 32:
        return STAGES["top_k"](scores, call)
    read = keep(scores, np.arange(size)[None] < size // 32 * 32)
    return STAGES["top_k"](read, call)


@wrong("top_k", example([[5.0, 4.0, 3.0, 2.0]], top_k=2), of=stage_at("top_k"))
def top_k_never_keeps_the_first_id(scores: Array, call: Call) -> Array:
    """Fault: id 0 is taken as padding, and top_k removes it [S07]."""
    if scores.shape[-1] < 3:
        return STAGES["top_k"](scores, call)
    return STAGES["top_k"](keep(scores, np.arange(scores.shape[-1])[None] > 0), call)


@wrong("top_k", example([[5.0, -4.9, 3.0, -6.0, 0.0]], top_k=2), of=stage_at("top_k"))
def top_k_of_absolute_scores(scores: Array, call: Call) -> Array:
    """Fault: the k largest magnitudes are kept, and a very negative score is large [P01]."""
    size = np.where(np.isfinite(scores), np.abs(scores), -np.inf)
    return keep(scores, np.isfinite(STAGES["top_k"](size, call)))


@wrong("top_k", example(top_k=5, top_p=0.5), also=("top_p", "min_p", "order"), of=with_config)
def filters_exclude_each_other(config):
    """Fault: with top_k on, min_p and top_p are skipped, with top_p on, min_p is: an `elif` too many [T11]."""
    if config.top_k:
        return replace_config(config, top_p=1.0, min_p=0.0)
    return replace_config(config, min_p=0.0) if config.top_p < 1 else config


@wrong("batch", APART, also=("top_k",), seen=PROCESS, of=stage_at("top_k"))
def top_k_shares_its_threshold(scores: Array, call: Call) -> Array:
    """Fault: the smallest threshold of all rows of the batch serves each of them [N17]."""
    k = max(call.config.top_k, call.config.min_tokens_to_keep)
    if k >= scores.shape[-1]:
        return scores
    return keep(scores, scores >= ranked(scores, k).min())
