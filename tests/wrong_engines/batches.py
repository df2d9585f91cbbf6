"""Right for one row, wrong for several."""

import itertools
from dataclasses import replace

import numpy as np

from .chain import Call, distinct, penalized
from .engines import Miniature, Processing, with_stage
from .tables import PROCESS, TWO_ROWS, example, wrong, wrong_rows

PENALTY = "repetition_penalty"
ROWS = np.concatenate([TWO_ROWS, TWO_ROWS * np.float32(1.3), TWO_ROWS[::-1]])
HISTORIES = [[3, 5, 0, 7], [2, 9], [1], [4, 4, 6], [8, 11, 12], [20]]
MANY = example(ROWS, HISTORIES, repetition_penalty=1.5, temperature=0.8, top_p=0.8)
SHIFTED = example(ROWS + 1, HISTORIES, repetition_penalty=1.5)
ONE_WITHOUT = example(TWO_ROWS, [[], [2, 9, 5]], repetition_penalty=1.5)


def with_selection(select) -> Miniature:
    return with_stage(repetition_penalty=penalized(select))


wrong_rows(
    "batch",
    "row_has_the_history_of_the_next: row i is penalised for the history of row i + 1, merged first [P14].",
    lambda: with_selection(lambda call, row, size: distinct(call.history[(row + 1) % len(call.history)], size)),
    "rows_share_the_history: every row is penalised for the histories of all [P14].",
    lambda: with_selection(lambda call, row, size: distinct(itertools.chain(*call.history), size)),
    seen=PROCESS,
    also=(PENALTY,),
    shows=MANY,
)


@wrong("batch", ONE_WITHOUT, seen=PROCESS, also=(PENALTY,), of=with_selection)
def rows_move_up_past_an_empty_history(call: Call, row: int, size: int) -> list[int]:
    """Fault: rows without a history are left out of the list, and the others move up [P15]."""
    full = [ids for ids in call.history if len(ids)]
    return distinct(full[row], size) if row < len(full) else []


@wrong("batch", MANY, seen=PROCESS, also=(PENALTY,), of=with_selection)
def window_of_rows(call: Call, row: int, size: int) -> list[int]:
    """Fault: a window of 4 is cut from the axis of rows; earlier rows are not penalised [P11]."""
    return distinct(call.history[row], size) if row >= len(call.history) - 4 else []


@wrong("batch", ONE_WITHOUT, seen=PROCESS, also=(PENALTY,), of=with_selection)
def short_histories_are_padded_with_0(call: Call, row: int, size: int) -> list[int]:
    """Fault: shorter histories are filled up with id 0, which is penalised for it [P15]."""
    longest = max(len(ids) for ids in call.history)
    return distinct([*call.history[row], *[0] * (longest - len(call.history[row]))], size)


@wrong("batch", MANY, seen=PROCESS, of=Processing)
def last_row_is_not_processed(process, logits, *rest):
    """Fault: an off-by-one leaves the last of several rows as it was [P15]."""
    scores = process(logits, *rest)
    return scores if len(scores) == 1 else np.concatenate([scores[:-1], np.asarray(logits)[-1:]])


@wrong("batch", MANY, seen=PROCESS, of=Processing)
def rows_come_back_reversed(process, *inputs):
    """Fault: rows are sorted for speed and not put back [P14]."""
    return process(*inputs)[::-1]


@wrong("batch", MANY, seen=PROCESS, also=("temperature",), of=Processing)
def rows_are_colder_in_large_batches(process, logits, history, config, uncond):
    """Fault: four rows or more go another way, on which the temperature is 5 % lower [R09]."""
    factor = 1.0 if len(logits) < 4 else 0.95
    return process(logits, history, replace(config, temperature=config.temperature * factor), uncond)


@wrong("batch", MANY, seen=PROCESS, also=("purity",), of=Processing)
def only_three_rows_fit(process, logits, *rest):
    """Fault: a fourth row is an IndexError [R06]."""
    if len(logits) > 3:
        raise IndexError("index 3 is out of bounds for axis 0 with size 3")
    return process(logits, *rest)


@wrong("batch", SHIFTED, seen=PROCESS, also=(PENALTY,), of=Processing)
def rows_are_centred_together(process, logits, *rest):
    """Fault: the mean over all rows is added, which the penalty turns into another distribution [P14]."""
    shift = 0 if len(logits) == 1 else np.asarray(logits).mean(dtype=np.float32)
    return process(np.asarray(logits) + shift, *rest)


@wrong("batch", MANY, seen=PROCESS, also=(PENALTY,), of=Processing)
def histories_are_cut_to_the_shortest(process, logits, history, *rest):
    """Fault: histories become one array, as long as the shortest of them [P15]."""
    shortest = min(len(ids) for ids in history)
    return process(logits, [list(ids)[:shortest] for ids in history], *rest)
