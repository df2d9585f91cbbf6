"""Wrong in the repetition penalty: the formula, and whom it concerns."""

from dataclasses import dataclass

import numpy as np

from .chain import LOWEST, Array, Call, distinct, penalized, run, scaled, seen, unchanged
from .engines import Miniature, OnlyProcesses, stage_at, with_config, with_stage
from .tables import PROCESS, example, replace_config, spread, wrong, wrong_rows

PENALTY = "repetition_penalty"
LONG = example(spread(101), history=[*range(0, 100, 3), *range(30)], repetition_penalty=1.5)
LONGER = example(spread(101), history=[*range(100), *range(30)], repetition_penalty=1.5)
REMOVED = example(history=[3, 5, 0, 7], top_k=3, repetition_penalty=1.5, order=("top_k", PENALTY))
FOREIGN = example(history=[3, 5, 40, 1000], repetition_penalty=1.5)


def with_penalty(*parts) -> Miniature:
    return with_stage(repetition_penalty=penalized(*parts))


wrong_rows(
    PENALTY,
    "penalty_divides_either_sign: scores of either sign are divided, so negative ones become more likely [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: scores / penalty),
    "penalty_multiplies_either_sign: scores of either sign are multiplied, so positive ones become more likely [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: scores * penalty),
    "penalty_mixes_the_signs_up: negative scores are divided and others multiplied [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: np.where(scores < 0, scores / penalty, scores * penalty)),
    "penalty_spares_negative_scores: only positive scores are penalised [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: np.where(scores < 0, scores, scores / penalty)),
    "penalty_for_every_occurrence: the penalty is applied once for each occurrence, r to the count [P02].",
    lambda: with_penalty(lambda call, row, size: [token for token in call.history[row] if token < size]),
    "penalty_twice_for_the_latest_id: the latest id is penalised again, as one that is also in the history [P02].",
    lambda: with_penalty(lambda call, row, size: [*seen(call, row, size), *distinct(call.history[row][-1:], size)]),
    example(history=[3, 0, 7, 3], repetition_penalty=1.5),
    "penalty_applied_twice: the wrapper penalises, and the engine again [P04].",
    lambda: with_penalty(seen, lambda scores, penalty: scaled(scaled(scores, penalty), penalty)),
    "penalty_without_effect: repetition_penalty is accepted and ignored [P05].",
    lambda: with_stage(repetition_penalty=unchanged),
    "penalty_never_rewards: a penalty below 1 is taken as 1 [P05].",
    lambda: with_config(lambda config: replace_config(config, repetition_penalty=max(config.repetition_penalty, 1.0))),
    example(history=[3, 5, 0, 7], repetition_penalty=0.7),
    "penalty_window_of_20: only the last 20 ids are penalised [P06].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][-20:], size)),
    LONG,
    "penalty_window_of_64: only the last 64 ids are penalised [P06].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][-64:], size)),
    LONGER,
    "penalty_of_the_first_64: of a long history the first 64 ids are kept, not the last [P06].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][:64], size)),
    LONGER,
    "penalty_forgets_the_first_id: the first id, BOS in a model, is not in what is penalised [P07].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][1:], size)),
    "penalty_forgets_the_latest_id: the token that was drawn last enters the history one step too late [P07].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][:-1], size)),
    "penalty_knows_only_the_latest_id: chunks of the prompt never enter the history; it starts at the last id [P07].",
    lambda: with_penalty(lambda call, row, size: distinct(call.history[row][-1:], size)),
)


@dataclass(frozen=True)
class ReadsTheContext(OnlyProcesses):
    """process() with the further keyword, from which the penalty reads where the prompt ends."""

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        return run(logits, Call(history, config, uncond_logits, context), self.engine.stages)


@wrong(PENALTY, offers=PROCESS, of=lambda select: ReadsTheContext(with_penalty(select)))
def penalty_excludes_the_prompt(call: Call, row: int, size: int) -> list[int]:
    """Fault: only what was drawn is penalised, not the prompt, for a caller who asks for HuggingFace's rule [P07]."""
    start = 0 if call.context is None else int(call.context.prompt_length[row])
    return distinct(call.history[row][start:], size)


wrong_rows(
    PENALTY,
    "penalty_subtracts: the penalty is subtracted from the score, not a factor [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: scores - penalty),
    "penalty_on_probabilities: "
    "the probability is divided by the penalty: log r off the score, whatever its size [P01].",
    lambda: with_penalty(seen, lambda scores, penalty: scores - np.log(penalty)),
    "penalty_moves_zero: a score of exactly zero, which no factor moves, is pushed down by the penalty [P01].",
    lambda: with_penalty(
        seen, lambda scores, penalty: np.where(scores == 0, -penalty, scaled(scores, penalty)).astype(np.float32)
    ),
    example(spread(25), history=[9, 3, 16], repetition_penalty=1.5),
    "penalty_revives_removed_tokens: a guard against infinity gives a removed token of the history the score 0 [P18].",
    lambda: with_penalty(seen, lambda scores, penalty: np.where(scores == LOWEST, 0, scaled(scores, penalty))),
    REMOVED,
    {"also": ("order",)},
    "penalty_makes_nan_of_removed_tokens: "
    "a difference replaces the factor, and minus infinity less itself is NaN [P18].",
    lambda: with_penalty(seen, lambda scores, penalty: scores - (scores - scaled(scores, penalty))),
    REMOVED,
    {"also": ("purity", "order")},
    "penalty_clamps_ids: ids beyond the vocabulary are clamped, and the last token is penalised for them [P15].",
    lambda: with_penalty(lambda call, row, size: distinct(np.minimum(call.history[row], size - 1).tolist(), size)),
    FOREIGN,
    "penalty_of_token_0: token 0 is penalised for ids beyond the vocabulary [P15].",
    lambda: with_penalty(
        lambda call, row, size: distinct([token if token < size else 0 for token in call.history[row]], size)
    ),
    FOREIGN,
    "penalty_wraps_ids: ids beyond the vocabulary are taken modulo its size [P15].",
    lambda: with_penalty(lambda call, row, size: distinct([token % size for token in call.history[row]], size)),
    FOREIGN,
)


@wrong(PENALTY, of=stage_at("repetition_penalty"))
def penalty_scaled_by_count(scores: Array, call: Call) -> Array:
    """Fault: the factor is the penalty times how often the id occurs [P02]."""
    penalty, scores = call.config.repetition_penalty, scores.copy()
    for row, ids in enumerate(call.history):
        for token in seen(call, row, scores.shape[-1]):
            factor = 1 + (penalty - 1) * list(ids).count(token)
            scores[row, token] = scaled(scores[row, token], np.float32(factor))
    return scores


wrong_rows(
    PENALTY,
    "penalty_of_the_neighbouring_id: ids are counted from 1, so the token below is penalised [P15].",
    lambda: with_penalty(lambda call, row, size: distinct([token - 1 for token in call.history[row]], size)),
    "penalty_on_tempered_scores_only: at temperature 1 the penalty is skipped with the division [P05].",
    lambda: with_stage(repetition_penalty=lambda s, call: s if call.config.temperature == 1 else penalized()(s, call)),
    {"also": ("order", "temperature")},
)
