"""Wrong in the repetition penalty: the formula, and whom it concerns."""

import numpy as np

from .chain import LOWEST, STAGES, Array, Call, distinct, penalized, run, scaled, seen, unchanged
from .engines import Miniature, OnlyProcesses, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong

PENALTY = "repetition_penalty"
LONG = example(spread(101), history=[*range(0, 100, 3), *range(30)], repetition_penalty=1.5)
LONGER = example(spread(101), history=[*range(100), *range(30)], repetition_penalty=1.5)
FOREIGN = example(history=[3, 5, 40, 1000], repetition_penalty=1.5)


def with_penalty(*parts) -> Miniature:
    return with_stage(repetition_penalty=penalized(*parts))


@wrong(PENALTY)
def penalty_divides_either_sign():
    """Lie: scores of either sign are divided, so negative ones become more likely [P01]."""
    return with_penalty(seen, lambda scores, penalty: scores / penalty)


@wrong(PENALTY)
def penalty_multiplies_either_sign():
    """Lie: scores of either sign are multiplied, so positive ones become more likely [P01]."""
    return with_penalty(seen, lambda scores, penalty: scores * penalty)


@wrong(PENALTY)
def penalty_mixes_the_signs_up():
    """Lie: negative scores are divided and others multiplied [P01]."""
    return with_penalty(seen, lambda scores, penalty: np.where(scores < 0, scores / penalty, scores * penalty))


@wrong(PENALTY)
def penalty_spares_negative_scores():
    """Lie: only positive scores are penalised [P01]."""
    return with_penalty(seen, lambda scores, penalty: np.where(scores < 0, scores, scores / penalty))


@wrong(PENALTY)
def penalty_for_every_occurrence():
    """Lie: the penalty is applied once for each occurrence, r to the count [P02]."""
    return with_penalty(lambda call, row, size: [token for token in call.history[row] if token < size])


@wrong(PENALTY, example(history=[3, 0, 7, 3], repetition_penalty=1.5))
def penalty_twice_for_the_latest_id():
    """Lie: the latest id is penalised again, as one that is also in the history [P02]."""
    return with_penalty(lambda call, row, size: [*seen(call, row, size), *distinct(call.history[row][-1:], size)])


@wrong(PENALTY)
def penalty_applied_twice():
    """Lie: the wrapper penalises, and the engine again [P04]."""
    return with_penalty(seen, lambda scores, penalty: scaled(scaled(scores, penalty), penalty))


@wrong(PENALTY)
def penalty_without_effect():
    """Lie: repetition_penalty is accepted and ignored [P05]."""
    return with_stage(repetition_penalty=unchanged)


@wrong(PENALTY, example(history=[3, 5, 0, 7], repetition_penalty=0.7))
def penalty_never_rewards():
    """Lie: a penalty below 1 is taken as 1 [P05]."""
    return with_config(lambda config: replace_config(config, repetition_penalty=max(config.repetition_penalty, 1.0)))


@wrong(PENALTY, LONG)
def penalty_window_of_20():
    """Lie: only the last 20 ids are penalised [P06]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][-20:], size))


@wrong(PENALTY, LONGER)
def penalty_window_of_64():
    """Lie: only the last 64 ids are penalised [P06]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][-64:], size))


@wrong(PENALTY, LONGER)
def penalty_of_the_first_64():
    """Lie: of a long history the first 64 ids are kept, not the last [P06]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][:64], size))


@wrong(PENALTY)
def penalty_forgets_the_first_id():
    """Lie: the first id, BOS in a model, is not in what is penalised [P07]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][1:], size))


@wrong(PENALTY)
def penalty_forgets_the_latest_id():
    """Lie: the token that was drawn last enters the history one step too late [P07]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][:-1], size))


@wrong(PENALTY)
def penalty_knows_only_the_latest_id():
    """Lie: chunks of the prompt never enter the history; it starts at the last id [P07]."""
    return with_penalty(lambda call, row, size: distinct(call.history[row][-1:], size))


class ExcludesThePrompt(Miniature):
    """Reads from the context where the prompt ends."""

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        return run(logits, Call(history, config, uncond_logits, context), self.stages)


@wrong(PENALTY, offers=PROCESS)
def penalty_excludes_the_prompt():
    """Lie: only what was drawn is penalised, not the prompt, for a caller who asks for HuggingFace's rule [P07]."""

    def select(call: Call, row: int, size: int) -> list[int]:
        start = 0 if call.context is None else int(call.context.prompt_length[row])
        return distinct(call.history[row][start:], size)

    return ProcessesWithContext(ExcludesThePrompt({**STAGES, PENALTY: penalized(select)}))


class ProcessesWithContext(OnlyProcesses):
    """process() with the further keyword."""

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        return self.engine.process(logits, history, config, uncond_logits, context=context)


@wrong(PENALTY)
def penalty_subtracts():
    """Lie: the penalty is subtracted from the score, not a factor [P01]."""
    return with_penalty(seen, lambda scores, penalty: scores - penalty)


@wrong(PENALTY)
def penalty_on_probabilities():
    """Lie: the probability is divided by the penalty, which is log r off the score, whatever its size [P01]."""
    return with_penalty(seen, lambda scores, penalty: scores - np.log(penalty))


@wrong(PENALTY, example(spread(25), history=[9, 3, 16], repetition_penalty=1.5))
def penalty_moves_zero():
    """Lie: a score of exactly zero, which no factor moves, is pushed down by the penalty [P01]."""
    return with_penalty(
        seen, lambda scores, penalty: np.where(scores == 0, -penalty, scaled(scores, penalty)).astype(np.float32)
    )


@wrong(
    PENALTY,
    example(history=[3, 5, 0, 7], top_k=3, repetition_penalty=1.5, order=("top_k", PENALTY)),
    also=("order",),
)
def penalty_revives_removed_tokens():
    """Lie: a removed token of the history comes back with the score 0 that a guard against infinity gives it [P18]."""
    return with_penalty(seen, lambda scores, penalty: np.where(scores == LOWEST, 0, scaled(scores, penalty)))


@wrong(
    PENALTY,
    example(history=[3, 5, 0, 7], top_k=3, repetition_penalty=1.5, order=("top_k", PENALTY)),
    also=("purity", "order"),
)
def penalty_makes_nan_of_removed_tokens():
    """Lie: a difference is added in place of a factor, and minus infinity less itself is NaN [P18]."""
    return with_penalty(seen, lambda scores, penalty: scores - (scores - scaled(scores, penalty)))


@wrong(PENALTY, FOREIGN)
def penalty_clamps_ids():
    """Lie: ids beyond the vocabulary are clamped, and the last token is penalised for them [P15]."""
    return with_penalty(lambda call, row, size: distinct(np.minimum(call.history[row], size - 1).tolist(), size))


@wrong(PENALTY, FOREIGN)
def penalty_of_token_0():
    """Lie: token 0 is penalised for ids beyond the vocabulary [P15]."""
    return with_penalty(
        lambda call, row, size: distinct([token if token < size else 0 for token in call.history[row]], size)
    )


@wrong(PENALTY, FOREIGN)
def penalty_wraps_ids():
    """Lie: ids beyond the vocabulary are taken modulo its size [P15]."""
    return with_penalty(lambda call, row, size: distinct([token % size for token in call.history[row]], size))


@wrong(PENALTY)
def penalty_scaled_by_count():
    """Lie: the factor is the penalty times how often the id occurs [P02]."""

    def stage(scores: Array, call: Call) -> Array:
        penalty, scores = call.config.repetition_penalty, scores.copy()
        for row, ids in enumerate(call.history):
            for token in seen(call, row, scores.shape[-1]):
                factor = 1 + (penalty - 1) * list(ids).count(token)
                scores[row, token] = scaled(scores[row, token], np.float32(factor))
        return scores

    return with_stage(repetition_penalty=stage)


@wrong(PENALTY)
def penalty_of_the_neighbouring_id():
    """Lie: ids are counted from 1, so the token below is penalised [P15]."""
    return with_penalty(lambda call, row, size: distinct([token - 1 for token in call.history[row]], size))


@wrong(PENALTY, also=("order", "temperature"))
def penalty_on_tempered_scores_only():
    """Lie: at temperature 1 the penalty is skipped with the division [P05]."""
    right = penalized()
    return with_stage(
        repetition_penalty=lambda scores, call: scores if call.config.temperature == 1 else right(scores, call)
    )
