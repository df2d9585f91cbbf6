"""Right for one row, wrong for several."""

import itertools

import numpy as np

from .chain import Array, Call, distinct, penalized
from .engines import Miniature, with_stage
from .tables import PROCESS, TWO_ROWS, example, replace_config, wrong

ROWS = np.concatenate([TWO_ROWS, TWO_ROWS * np.float32(1.3), TWO_ROWS[::-1]])
HISTORIES = [[3, 5, 0, 7], [2, 9], [1], [4, 4, 6], [8, 11, 12], [20]]
MANY = example(ROWS, HISTORIES, repetition_penalty=1.5, temperature=0.8, top_p=0.8)
SHIFTED = example(ROWS + 1, HISTORIES, repetition_penalty=1.5)
ONE_WITHOUT = example(TWO_ROWS, [[], [2, 9, 5]], repetition_penalty=1.5)


def with_selection(select) -> Miniature:
    return with_stage(repetition_penalty=penalized(select))


@wrong("batch", MANY, seen=PROCESS, also=("repetition_penalty",))
def row_has_the_history_of_the_next():
    """Lie: row i is penalised for the history of row i + 1, whose state was merged first [P14]."""
    return with_selection(lambda call, row, size: distinct(call.history[(row + 1) % len(call.history)], size))


@wrong("batch", MANY, seen=PROCESS, also=("repetition_penalty",))
def rows_share_the_history():
    """Lie: every row is penalised for the histories of all [P14]."""
    return with_selection(lambda call, row, size: distinct(itertools.chain(*call.history), size))


@wrong("batch", ONE_WITHOUT, seen=PROCESS, also=("repetition_penalty",))
def rows_move_up_past_an_empty_history():
    """Lie: rows without a history are left out of the list, and the others move up [P15]."""

    def select(call: Call, row: int, size: int) -> list[int]:
        full = [ids for ids in call.history if len(ids)]
        return distinct(full[row], size) if row < len(full) else []

    return with_selection(select)


@wrong("batch", MANY, seen=PROCESS, also=("repetition_penalty",))
def window_of_rows():
    """Lie: a window of 4 is cut from the axis of rows; earlier rows are not penalised [P11]."""
    return with_selection(
        lambda call, row, size: distinct(call.history[row], size) if row >= len(call.history) - 4 else []
    )


@wrong("batch", ONE_WITHOUT, seen=PROCESS, also=("repetition_penalty",))
def short_histories_are_padded_with_0():
    """Lie: shorter histories are filled up with id 0, which is penalised for it [P15]."""

    def select(call: Call, row: int, size: int) -> list[int]:
        longest = max(len(ids) for ids in call.history)
        return distinct([*call.history[row], *[0] * (longest - len(call.history[row]))], size)

    return with_selection(select)


class ForEachBatch(Miniature):
    """A chain that looks at the batch as a whole."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        return self.change(super().process, logits, history, config, uncond_logits)


def skips_the_last_row(process, logits, history, config, uncond):
    scores = process(logits, history, config, uncond)
    return scores if len(scores) == 1 else np.concatenate([scores[:-1], np.asarray(logits)[-1:]])


@wrong("batch", MANY, seen=PROCESS)
def last_row_is_not_processed():
    """Lie: an off-by-one leaves the last of several rows as it was [P15]."""
    return ForEachBatch(skips_the_last_row)


def exchanges_rows(process, logits, history, config, uncond):
    return process(logits, history, config, uncond)[::-1]


@wrong("batch", MANY, seen=PROCESS)
def rows_come_back_reversed():
    """Lie: rows are sorted for speed and not put back [P14]."""
    return ForEachBatch(exchanges_rows)


def colder_when_many(process, logits, history, config, uncond):
    factor = 1.0 if len(logits) < 4 else 0.95
    return process(logits, history, replace_config(config, temperature=config.temperature * factor), uncond)


@wrong("batch", MANY, seen=PROCESS, also=("temperature",))
def rows_are_colder_in_large_batches():
    """Lie: four rows or more go another way, on which the temperature is 5 % lower [R09]."""
    return ForEachBatch(colder_when_many)


def breaks_when_many(process, logits, history, config, uncond):
    if len(logits) > 3:
        raise IndexError("index 3 is out of bounds for axis 0 with size 3")
    return process(logits, history, config, uncond)


@wrong("batch", MANY, seen=PROCESS, also=("purity",))
def only_three_rows_fit():
    """Lie: a fourth row is an IndexError [R06]."""
    return ForEachBatch(breaks_when_many)


def centres_over_the_batch(process, logits, history, config, uncond):
    shifted = np.asarray(logits) + (0 if len(logits) == 1 else np.asarray(logits).mean(dtype=np.float32))
    return process(shifted, history, config, uncond)


@wrong("batch", SHIFTED, seen=PROCESS, also=("repetition_penalty",))
def rows_are_centred_together():
    """Lie: the mean over all rows is added, which the penalty turns into another distribution [P14]."""
    return ForEachBatch(centres_over_the_batch)


def cuts_histories(process, logits, history, config, uncond):
    shortest = min(len(ids) for ids in history)
    return process(logits, [list(ids)[:shortest] for ids in history], config, uncond)


@wrong("batch", MANY, seen=PROCESS, also=("repetition_penalty",))
def histories_are_cut_to_the_shortest():
    """Lie: histories become one array, as long as the shortest of them [P15]."""
    return ForEachBatch(cuts_histories)
