"""Wrong in min_p: what it is relative to, and where it applies."""

import numpy as np

from .chain import STAGES, Array, Call, keep, min_p, most_likely, softmax, spared, unchanged
from .engines import Miniature, stage_at, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows


def sparing(spare) -> Miniature:
    return with_stage(min_p=min_p(spare=spare))


wrong_rows(
    "min_p",
    "min_p_without_effect: min_p is accepted and ignored [P05].",
    lambda: with_stage(min_p=unchanged),
    "min_p_on_raw_scores: scores, not probabilities, are compared with min_p times the largest [N13].",
    lambda: with_stage(min_p=min_p(lambda scores, p: scores >= p * scores.max(axis=-1, keepdims=True))),
)


@wrong("min_p", example(spread(40_000), min_p=0.1))
def min_p_off_for_large_vocabularies():
    """Fault: above 32,768 tokens min_p is silently off [N14]."""
    right = STAGES["min_p"]
    return with_stage(min_p=lambda scores, call: scores if scores.shape[-1] > 32_768 else right(scores, call))


@wrong("min_p", example(min_p=0.5, min_tokens_to_keep=4), also=("purity",), of=sparing)
def min_p_fails_with_min_tokens_to_keep(scores: Array, call: Call) -> Array:
    """Fault: with min_tokens_to_keep above 1 there is a TypeError [N16]."""
    if call.config.min_tokens_to_keep > 1:
        raise TypeError("put_along_axis(): incompatible function arguments")
    return spared(scores, call)


@wrong("min_p", example(min_p=0.1))
def min_p_relative_to_one():
    """Fault: tokens of p < min_p are removed, whatever the largest p is [N13]."""
    return with_stage(min_p=min_p(lambda scores, p: softmax(scores) >= p))


@wrong("min_p", example([[1.0, 2.0, 2.0, 0.0, 2.0]], min_p=1.0))
def min_p_removes_what_equals_the_threshold():
    """Fault: what equals the threshold goes too; at min_p = 1, where this is exact, one maximum is left [N13]."""
    kept = min_p(
        lambda scores, p: scores - scores.max(axis=-1, keepdims=True) > np.log(p),
        lambda scores, call: most_likely(scores, call.config.min_tokens_to_keep),
    )
    return with_stage(min_p=kept)


wrong_rows(
    "min_p",
    "min_p_forgets_min_tokens_to_keep: min_p removes tokens that min_tokens_to_keep spares [N16].",
    lambda: sparing(lambda scores, call: np.zeros(scores.shape, dtype=bool)),
    example(min_p=0.5, min_tokens_to_keep=6),
    "min_p_keeps_two_at_least: one token more than min_tokens_to_keep is spared [N16].",
    lambda: sparing(lambda scores, call: most_likely(scores, call.config.min_tokens_to_keep + 1)),
    example(min_p=0.8),
    "min_p_in_base_two: the threshold lies log2(min_p) below the largest score, not ln(min_p) [N13].",
    lambda: with_stage(min_p=min_p(lambda scores, p: scores - scores.max(axis=-1, keepdims=True) >= np.log2(p))),
    "min_p_relative_to_the_mean: tokens of p < min_p times the mean p of all tokens are removed [N13].",
    lambda: with_stage(min_p=min_p(lambda scores, p: softmax(scores) * scores.shape[-1] >= p)),
)


@wrong("min_p", example(min_p=0.2), of=lambda kept: with_stage(min_p=min_p(kept)))
def min_p_relative_to_the_second(scores: Array, p: float) -> Array:
    """Fault: the threshold is taken from the second largest probability [N13]."""
    second = np.sort(scores, axis=-1)[:, -2:-1]
    return scores - second >= np.log(p)


@wrong("min_p", example(min_p=0.3, temperature=2.0), also=("order",), of=stage_at("min_p"))
def min_p_scaled_by_temperature(scores: Array, call: Call) -> Array:
    """Fault: the threshold is multiplied by the temperature, as if scores were untempered [N15]."""
    p = call.config.min_p ** (1 / (call.config.temperature or 1))
    return STAGES["min_p"](scores, Call(call.history, replace_config(call.config, min_p=p)))


@wrong("min_p", example([[2.0, 1.5, 1.0, 1.9]], min_p=0.5), of=stage_at("min_p"))
def min_p_never_keeps_the_last_id(scores: Array, call: Call) -> Array:
    """Fault: an exclusive end leaves the last id out of what min_p may keep [S07]."""
    if scores.shape[-1] == 2:
        return STAGES["min_p"](scores, call)
    return STAGES["min_p"](keep(scores, np.arange(scores.shape[-1])[None] < scores.shape[-1] - 1), call)


wrong_rows(
    "min_p",
    "min_p_1_is_off: min_p = 1 is taken as off, as top_p = 1 is [N15].",
    lambda: with_config(lambda config: replace_config(config, min_p=config.min_p % 1)),
    example(min_p=1.0),
    "min_p_of_the_batch: the largest score of all rows is what every row is compared with [N17].",
    lambda: with_stage(min_p=min_p(lambda scores, p: scores - scores.max() >= np.log(p))),
    example(np.concatenate([spread(), spread() - 3]), min_p=0.2),
    {"also": ("min_p",), "seen": PROCESS, "stage": "batch"},
)


@wrong("order", example(min_p=0.3, temperature=2.0), also=("min_p",), of=stage_at("min_p"))
def min_p_before_temperature(scores: Array, call: Call) -> Array:
    """Fault: min_p looks at untempered scores, whatever the order says [N15]."""
    untempered = call.states.get("temperature", scores)
    kept = STAGES["min_p"](keep(untempered, np.isfinite(scores)), call)
    return keep(scores, np.isfinite(kept))
