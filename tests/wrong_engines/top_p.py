"""Wrong in top_p: which tokens the nucleus takes."""

import numpy as np

from .chain import LOWEST, STAGES, Array, Call, back, keep, nucleus, order, reaches, softmax, unchanged
from .engines import stage_at, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows

TIES = example([[2.0, 1.0, 1.0, 1.0, 1.0, -3.0]], top_p=0.55)
EQUAL = example(np.zeros((1, 8)), top_p=0.55)
TWO = example(np.concatenate([spread(), spread() / 4]), top_p=0.7)
PEAKED = example([[9.0, 1.0, 0.0, -1.0]], top_p=0.5)


def with_nucleus(*parts, **options):
    return with_stage(top_p=nucleus(*parts, **options))


wrong_rows(
    "top_p",
    "top_p_without_effect: top_p is accepted and ignored [P05].",
    lambda: with_stage(top_p=unchanged),
    "top_p_drops_the_crossing_token: the token that crosses top_p is dropped, if it is not the only one [N01].",
    lambda: with_nucleus(lambda before, mass, top_p: before + mass <= top_p),
    "top_p_may_keep_nothing: the token that crosses top_p is dropped even if it is the only one [N01].",
    lambda: with_nucleus(lambda before, mass, top_p: before + mass <= top_p, spare=False),
    PEAKED,
)


@wrong("top_p", of=with_nucleus)
def top_p_keeps_one_more(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: the token after the one that crosses is kept too [N01]."""
    kept = before < top_p
    return np.concatenate([kept[:, :1], kept[:, :-1]], axis=-1)


@wrong("top_p", example(np.zeros((1, 8)), top_p=0.5))
def top_p_keeps_one_more_at_the_edge():
    """Fault: a mass that equals top_p exactly has not reached it, and one more token is kept [N01]."""
    return with_nucleus(lambda before, mass, top_p: before <= top_p)


@wrong("top_p", of=lambda decide: with_nucleus(decide, lambda scores, call: np.exp(scores.astype(np.float64))))
def top_p_of_raw_exponentials(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: exp of the scores as they are, not normalised, is summed up to 1 - top_p [N03]."""
    upwards = np.cumsum(mass[:, ::-1], axis=-1)[:, ::-1]
    return upwards > 1 - top_p


wrong_rows(
    "top_p",
    "top_p_keeps_the_tail: the mask is inverted, and the most likely tokens go [N05].",
    lambda: with_nucleus(lambda before, mass, top_p: before >= top_p, spare=False),
    "top_p_of_its_complement: top_p is the mass that is removed, not the mass that is kept [N05].",
    lambda: with_nucleus(lambda before, mass, top_p: before < 1 - top_p),
)


@wrong("top_p", of=with_nucleus)
def top_p_sums_log_probabilities(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: log-probabilities are summed up in place of probabilities [N06]."""
    with np.errstate(all="ignore"):
        return np.cumsum(np.log(mass), axis=-1) - np.log(mass) > np.log(top_p)


@wrong("top_p", example(spread(9_973, -1, 1), top_p=0.7), also=("precision",), of=with_nucleus)
def top_p_sums_in_float16(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: the cumulative sum runs in float16, and small terms do not count any more [N07]."""
    total = np.cumsum(mass.astype(np.float16), axis=-1, dtype=np.float16)
    return np.concatenate([np.zeros_like(total[:, :1]), total[:, :-1]], axis=-1) < np.float16(top_p)


@wrong("top_p", example(spread(9_973, -1, 1), top_p=0.7004), also=("precision",), of=with_nucleus)
def top_p_sums_in_bfloat16(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: the cumulative sum is rounded to the eight bits of bfloat16 [N07]."""
    bits = before.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32) < top_p


@wrong("top_p", of=stage_at("top_p"))
def top_p_keeps_by_rank(scores: Array, call: Call) -> Array:
    """Fault: the mask of the sorted tokens is not put back, and the first ids are kept [N09]."""
    count = np.isfinite(STAGES["top_p"](scores, call)).sum(axis=-1, keepdims=True)
    return keep(scores, np.arange(scores.shape[-1])[None] < count)


@wrong("top_p", of=stage_at("top_p"))
def top_p_puts_back_by_the_wrong_index(scores: Array, call: Call) -> Array:
    """Fault: the mask is gathered with the sorting ids, where it should be scattered [N09]."""
    ids = order(scores)
    mass = np.take_along_axis(softmax(scores), ids, axis=-1)
    kept = np.cumsum(mass, axis=-1) - mass < call.config.top_p
    return keep(scores, np.take_along_axis(kept, ids, axis=-1))


@wrong("top_p", example(min_p=0.3, top_p=0.7), also=("order",), of=lambda mass: with_nucleus(reaches, mass))
def top_p_does_not_renormalise(scores: Array, call: Call) -> Array:
    """Fault: what other filters left is not renormalised, and its sum may never reach top_p [N03]."""
    places = [stage for stage in call.states if stage in ("top_k", "min_p")]
    whole = call.states[places[0]] if places else scores
    return np.where(np.isfinite(scores), softmax(whole), 0.0)


@wrong("order", example(temperature=2.0, top_p=0.7), also=("top_p",), of=lambda mass: with_nucleus(reaches, mass))
def top_p_of_untempered_probabilities(scores: Array, call: Call) -> Array:
    """Fault: the nucleus is taken of untempered probabilities, whatever the order says [T01]."""
    untempered = call.states.get("temperature", scores)
    return softmax(np.where(np.isfinite(scores), untempered, LOWEST))


@wrong("top_p", example(top_p=0.0), of=stage_at("top_p"))
def top_p_0_keeps_nothing(scores: Array, call: Call) -> Array:
    """Fault: top_p = 0 removes everything [N01]."""
    right = STAGES["top_p"](scores, call)
    return np.full_like(scores, LOWEST) if call.config.top_p == 0 else right


wrong_rows(
    "top_p",
    "top_p_0_is_off: top_p = 0 is taken as not given [T06].",
    lambda: with_config(lambda config: replace_config(config, top_p=config.top_p or 1.0)),
    example(top_p=0.0),
    "top_p_forgets_min_tokens_to_keep: top_p removes tokens that min_tokens_to_keep spares [N16].",
    lambda: with_nucleus(lambda before, mass, top_p: (before < top_p) | (before == 0), spare=False),
    example(top_p=0.3, min_tokens_to_keep=9),
)


@wrong("top_p", example(top_p=0.4, min_tokens_to_keep=3), of=stage_at("top_p"))
def top_p_adds_min_tokens_to_keep(scores: Array, call: Call) -> Array:
    """Fault: min_tokens_to_keep - 1 tokens are kept beyond the nucleus [N16]."""
    ids = order(scores)
    mass = np.take_along_axis(softmax(scores), ids, axis=-1)
    before = np.cumsum(mass, axis=-1) - mass
    count = (before < call.config.top_p).sum(axis=-1, keepdims=True) + call.config.min_tokens_to_keep - 1
    return keep(scores, back(ids, np.arange(scores.shape[-1])[None] < np.maximum(count, 1)))


def by_threshold(keeps_ties: bool):
    def stage(scores: Array, call: Call) -> Array:
        right = STAGES["top_p"](scores, call)
        edge = np.where(right > LOWEST, right, np.inf).min(axis=-1, keepdims=True)
        tied = ((scores == edge) & (right == LOWEST)).any(axis=-1, keepdims=True)
        return keep(scores, scores >= edge if keeps_ties else (right > edge) | (~tied & (right == edge)))

    return stage_at("top_p")(stage)


wrong_rows(
    "top_p",
    "top_p_keeps_all_ties: everything that ties with the crossing token is kept, more than the mass needs [T09].",
    lambda: by_threshold(keeps_ties=True),
    TIES,
    "top_p_drops_all_ties: tokens that tie at the threshold all go, and of equal scores nothing is left [N23].",
    lambda: by_threshold(keeps_ties=False),
    EQUAL,
)


@wrong("top_p", example([[1.0, 0.5, 0.0, 0.9]], top_p=0.8), of=stage_at("top_p"))
def top_p_never_keeps_the_last_id(scores: Array, call: Call) -> Array:
    """Fault: the mask is one too short, and the last id always goes [S07]."""
    if scores.shape[-1] == 2:
        return STAGES["top_p"](scores, call)
    kept = STAGES["top_p"](scores, call)
    alone = np.isfinite(kept).sum(axis=-1, keepdims=True) == 1
    return keep(kept, alone | (np.arange(scores.shape[-1])[None] < scores.shape[-1] - 1))


@wrong("top_p", example(spread(5_000, -0.1, 0.1), top_p=0.9), of=with_nucleus)
def top_p_looks_at_1024_tokens(before: Array, mass: Array, top_p: float) -> Array:
    """Fault: only the 1,024 most likely tokens are sorted, and the nucleus ends there at the latest [N14]."""
    return (before < top_p) & (np.arange(mass.shape[-1])[None] < 1024)


@wrong("batch", TWO, also=("top_p",), seen=PROCESS, of=stage_at("top_p"))
def top_p_reverses_the_batch(scores: Array, call: Call) -> Array:
    """Fault: the rows, not the sorted tokens, are turned around, and each has the mask of another [N09]."""
    kept = np.isfinite(STAGES["top_p"](scores, call))
    return keep(scores, kept[::-1])


@wrong("batch", TWO, also=("top_p",), seen=PROCESS)
def top_p_normalises_over_the_batch():
    """Fault: all rows together have the mass 1 [N09]."""
    return with_nucleus(reaches, lambda scores, call: softmax(scores.reshape(1, -1)).reshape(scores.shape))
