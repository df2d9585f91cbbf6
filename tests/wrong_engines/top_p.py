"""Wrong in top_p: which tokens the nucleus takes."""

import numpy as np

from .chain import LOWEST, STAGES, Array, Call, back, keep, nucleus, order, reaches, softmax, unchanged
from .engines import with_config, with_stage
from .tables import example, replace_config, spread, wrong

TIES = example([[2.0, 1.0, 1.0, 1.0, 1.0, -3.0]], top_p=0.55)
EQUAL = example(np.zeros((1, 8)), top_p=0.55)
PEAKED = example([[9.0, 1.0, 0.0, -1.0]], top_p=0.5)


def with_nucleus(*parts, **options):
    return with_stage(top_p=nucleus(*parts, **options))


@wrong("top_p")
def top_p_without_effect():
    """Lie: top_p is accepted and ignored [P05]."""
    return with_stage(top_p=unchanged)


@wrong("top_p")
def top_p_drops_the_crossing_token():
    """Lie: the token that crosses top_p is dropped, if it is not the only one [N01]."""
    return with_nucleus(lambda before, mass, top_p: before + mass <= top_p)


@wrong("top_p", PEAKED)
def top_p_may_keep_nothing():
    """Lie: the token that crosses top_p is dropped even if it is the only one [N01]."""
    return with_nucleus(lambda before, mass, top_p: before + mass <= top_p, spare=False)


@wrong("top_p")
def top_p_keeps_one_more():
    """Lie: the token after the one that crosses is kept too [N01]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        kept = before < top_p
        return np.concatenate([kept[:, :1], kept[:, :-1]], axis=-1)

    return with_nucleus(decide)


@wrong("top_p", example(np.zeros((1, 8)), top_p=0.5))
def top_p_keeps_one_more_at_the_edge():
    """Lie: a mass that equals top_p exactly has not reached it, and one more token is kept [N01]."""
    return with_nucleus(lambda before, mass, top_p: before <= top_p)


@wrong("top_p")
def top_p_of_raw_exponentials():
    """Lie: exp of the scores as they are, not normalised, is summed up to 1 - top_p [N03]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        upwards = np.cumsum(mass[:, ::-1], axis=-1)[:, ::-1]
        return upwards > 1 - top_p

    return with_nucleus(decide, lambda scores, call: np.exp(scores.astype(np.float64)))


@wrong("top_p")
def top_p_keeps_the_tail():
    """Lie: the mask is inverted, and the most likely tokens go [N05]."""
    return with_nucleus(lambda before, mass, top_p: before >= top_p, spare=False)


@wrong("top_p")
def top_p_of_its_complement():
    """Lie: top_p is the mass that is removed, not the mass that is kept [N05]."""
    return with_nucleus(lambda before, mass, top_p: before < 1 - top_p)


@wrong("top_p")
def top_p_sums_log_probabilities():
    """Lie: log-probabilities are summed up in place of probabilities [N06]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        with np.errstate(all="ignore"):
            return np.cumsum(np.log(mass), axis=-1) - np.log(mass) > np.log(top_p)

    return with_nucleus(decide)


@wrong("top_p", example(spread(9_973, -1, 1), top_p=0.7), also=("precision",))
def top_p_sums_in_float16():
    """Lie: the cumulative sum runs in float16, and small terms do not count any more [N07]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        total = np.cumsum(mass.astype(np.float16), axis=-1, dtype=np.float16)
        return np.concatenate([np.zeros_like(total[:, :1]), total[:, :-1]], axis=-1) < np.float16(top_p)

    return with_nucleus(decide)


@wrong("top_p", example(spread(9_973, -1, 1), top_p=0.7004), also=("precision",))
def top_p_sums_in_bfloat16():
    """Lie: the cumulative sum is rounded to the eight bits of bfloat16 [N07]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        bits = before.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32) < top_p

    return with_nucleus(decide)


@wrong("top_p")
def top_p_keeps_by_rank():
    """Lie: the mask of the sorted tokens is not put back, and the first ids are kept [N09]."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1:
            return scores
        count = np.isfinite(STAGES["top_p"](scores, call)).sum(axis=-1, keepdims=True)
        return keep(scores, np.arange(scores.shape[-1])[None] < count)

    return with_stage(top_p=stage)


@wrong("top_p")
def top_p_puts_back_by_the_wrong_index():
    """Lie: the mask is gathered with the sorting ids, where it should be scattered [N09]."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1:
            return scores
        ids = order(scores)
        mass = np.take_along_axis(softmax(scores), ids, axis=-1)
        kept = np.cumsum(mass, axis=-1) - mass < call.config.top_p
        return keep(scores, np.take_along_axis(kept, ids, axis=-1))

    return with_stage(top_p=stage)


BEFORE_MIN_P = example(min_p=0.3, top_p=0.7)


@wrong("top_p", BEFORE_MIN_P, also=("order",))
def top_p_does_not_renormalise():
    """Lie: what other filters left is not renormalised, and its sum may never reach top_p [N03]."""

    def mass(scores: Array, call: Call) -> Array:
        places = [stage for stage in call.states if stage in ("top_k", "min_p")]
        whole = call.states[places[0]] if places else scores
        return np.where(np.isfinite(scores), softmax(whole), 0.0)

    return with_nucleus(reaches, mass)


@wrong("order", example(temperature=2.0, top_p=0.7), also=("top_p",))
def top_p_of_untempered_probabilities():
    """Lie: the nucleus is taken of untempered probabilities, whatever the order says [T01]."""

    def mass(scores: Array, call: Call) -> Array:
        untempered = call.states.get("temperature", scores)
        return softmax(np.where(np.isfinite(scores), untempered, LOWEST))

    return with_nucleus(reaches, mass)


@wrong("top_p", example(top_p=0.0))
def top_p_0_keeps_nothing():
    """Lie: top_p = 0 removes everything [N01]."""

    def stage(scores: Array, call: Call) -> Array:
        right = STAGES["top_p"](scores, call)
        return np.full_like(scores, LOWEST) if call.config.top_p == 0 else right

    return with_stage(top_p=stage)


@wrong("top_p", example(top_p=0.0))
def top_p_0_is_off():
    """Lie: top_p = 0 is taken as not given [T06]."""
    return with_config(lambda config: replace_config(config, top_p=config.top_p or 1.0))


@wrong("top_p", example(top_p=0.3, min_tokens_to_keep=9))
def top_p_forgets_min_tokens_to_keep():
    """Lie: top_p removes tokens that min_tokens_to_keep spares [N16]."""
    return with_nucleus(lambda before, mass, top_p: (before < top_p) | (before == 0), spare=False)


@wrong("top_p", example(top_p=0.4, min_tokens_to_keep=3))
def top_p_adds_min_tokens_to_keep():
    """Lie: min_tokens_to_keep - 1 tokens are kept beyond the nucleus [N16]."""

    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1:
            return scores
        ids = order(scores)
        mass = np.take_along_axis(softmax(scores), ids, axis=-1)
        before = np.cumsum(mass, axis=-1) - mass
        count = (before < call.config.top_p).sum(axis=-1, keepdims=True) + call.config.min_tokens_to_keep - 1
        return keep(scores, back(ids, np.arange(scores.shape[-1])[None] < np.maximum(count, 1)))

    return with_stage(top_p=stage)


def by_threshold(keeps_ties: bool):
    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1:
            return scores
        right = STAGES["top_p"](scores, call)
        edge = np.where(right > LOWEST, right, np.inf).min(axis=-1, keepdims=True)
        tied = ((scores == edge) & (right == LOWEST)).any(axis=-1, keepdims=True)
        kept = scores >= edge if keeps_ties else (right > edge) | (~tied & (right == edge))
        return keep(scores, kept)

    return with_stage(top_p=stage)


@wrong("top_p", TIES)
def top_p_keeps_all_ties():
    """Lie: everything that ties with the crossing token is kept, more than the mass needs [T09]."""
    return by_threshold(keeps_ties=True)


@wrong("top_p", EQUAL)
def top_p_drops_all_ties():
    """Lie: tokens that tie at the threshold all go, and of equal scores nothing is left [N23]."""
    return by_threshold(keeps_ties=False)


@wrong("top_p", example([[1.0, 0.5, 0.0, 0.9]], top_p=0.8))
def top_p_never_keeps_the_last_id():
    """Lie: the mask is one too short, and the last id always goes [S07]."""
    right = STAGES["top_p"]

    def stage(scores: Array, call: Call) -> Array:
        if call.config.top_p == 1 or scores.shape[-1] == 2:
            return right(scores, call)
        kept = right(scores, call)
        alone = np.isfinite(kept).sum(axis=-1, keepdims=True) == 1
        return keep(kept, alone | (np.arange(scores.shape[-1])[None] < scores.shape[-1] - 1))

    return with_stage(top_p=stage)


@wrong("top_p", example(spread(5_000, -0.1, 0.1), top_p=0.9))
def top_p_looks_at_1024_tokens():
    """Lie: only the 1,024 most likely tokens are sorted, and the nucleus ends there at the latest [N14]."""

    def decide(before: Array, mass: Array, top_p: float) -> Array:
        return (before < top_p) & (np.arange(mass.shape[-1])[None] < 1024)

    return with_nucleus(decide)


@wrong("batch", example(np.concatenate([spread(), spread() / 4]), top_p=0.7), also=("top_p",), seen=("process",))
def top_p_reverses_the_batch():
    """Lie: the rows, not the sorted tokens, are turned around, and each has the mask of another [N09]."""

    def stage(scores: Array, call: Call) -> Array:
        kept = np.isfinite(STAGES["top_p"](scores, call))
        return scores if call.config.top_p == 1 else keep(scores, kept[::-1])

    return with_stage(top_p=stage)


@wrong("batch", example(np.concatenate([spread(), spread() / 4]), top_p=0.7), also=("top_p",), seen=("process",))
def top_p_normalises_over_the_batch():
    """Lie: all rows together have the mass 1 [N09]."""
    return with_nucleus(reaches, lambda scores, call: softmax(scores.reshape(1, -1)).reshape(scores.shape))
