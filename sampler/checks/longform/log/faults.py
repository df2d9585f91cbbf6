"""What is common to all runs of a log: BOS or a prompt before them, padding or no EOS behind them, shifted ids.

None of it was drawn by the engine, so that it is put right, or at least told, before a stage is blamed. What right runs
look like, the reference says (`Known`): what honest runs have in common, they have in common with the reference too.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Protocol

from sampler.checks.longform.log.edits import Edit, Fix
from sampler.checks.longform.runs import TokenRun

ROUNDS: Final = 6
"""Faults that a log may have, one behind the other."""

MOST: Final = 0.5
"""More than this share of the runs have a fault that is common to them."""

SHOWN: Final = 3


@dataclass(frozen=True)
class Fault:
    """What is common to all runs. says: it in words. fix: its name, None if there is none; edits: one for each run."""

    says: str
    fix: Fix | None
    edits: tuple[Edit, ...] = ()

    @property
    def name(self) -> str:
        return self.fix or "vocabulary"

    @property
    def sentence(self) -> str:
        """What is common, and what to do."""
        return f"{self.says}; {f'--fix {self.fix} puts it right' if self.fix else 'is it the log of another model?'}"


class Known(Protocol):
    """What is known of right runs. whose: in words, as `the reference`; eos_ids: empty if they are unknown."""

    @property
    def eos_ids(self) -> Collection[int]: ...

    @property
    def whose(self) -> str: ...

    def offset(self, runs: Sequence[TokenRun]) -> int:
        """By how much all ids are larger; 0 if they are not."""

    def foreign(self, runs: Sequence[TokenRun], prefix: Sequence[int]) -> int:
        """How many tokens at the beginning of all runs are none that a right run begins with.

        prefix: what all runs have in common at their beginning, not empty.
        """

    def is_beyond(self, token: int) -> bool:
        """Whether a token is larger than any that a right run has."""

    def vocabulary(self, runs: Sequence[TokenRun]) -> str:
        """In words, that ids lie beyond the vocabulary; empty if they do not."""

    @property
    def needs_eos(self) -> bool:
        """Whether a log without EOS must be put right before it can be judged."""


def faults_of(runs: Sequence[TokenRun], known: Known | None, among: Collection[Fix] | None = None) -> Iterator[Fault]:
    """The faults of a log, each found after those before it were put right. among: leave others alone."""
    for _ in range(ROUNDS):
        found = (fault for look in LOOKS if (fault := look(runs, known)) is not None)
        fault = next((fault for fault in found if among is None or fault.fix in among), None)
        if fault is None:
            return
        yield fault
        if fault.fix is None:
            return
        runs = [edit.run(run) for run, edit in zip(runs, fault.edits, strict=True)]


def common_prefix(runs: Sequence[TokenRun]) -> tuple[int, ...]:
    """What all runs begin with; each has at least one token behind it."""
    different = sorted({run.tokens for run in runs})
    if not different:
        return ()
    shortest = min(len(tokens) for tokens in different) - 1
    pairs = zip(different[0], different[-1], strict=False)  # in order, all others lie between these two
    return tuple(one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs))[: max(0, shortest)]


def body(tokens: Sequence[int], first: int) -> Sequence[int]:
    """The tokens of a run without its first ones, and without the repeats of its last one."""
    last = len(tokens)
    while last - 1 > first and tokens[last - 1] == tokens[last - 2]:
        last -= 1
    return tokens[first:last]


def _offset(runs: Sequence[TokenRun], known: Known | None) -> Fault | None:
    shift = known.offset(runs) if known else 0
    if known is None or not shift:
        return None
    ended = [run.tokens[-1] for run in runs if run.ended and run.tokens]
    spared = tuple(known.eos_ids) if ended and all(token in known.eos_ids for token in ended) else ()
    words = f"all ids are {abs(shift):,} {'larger' if shift > 0 else 'smaller'} than those of {known.whose}"
    return Fault(words, "offset", (Edit(shift=shift, spared=spared),) * len(runs))


def _padding(runs: Sequence[TokenRun], known: Known | None) -> Fault | None:
    """Runs that go on after EOS with one token alone, which fills a batch up to its longest run."""
    eos = set(known.eos_ids) if known and known.eos_ids else _own_eos(runs)
    ends = [next((step + 1 for step, token in enumerate(run.tokens) if token in eos), None) for run in runs]
    behind = [run.tokens[end:] for run, end in zip(runs, ends, strict=True) if end is not None]
    padded = [tokens for tokens in behind if tokens]
    fill = {token for tokens in padded for token in tokens}
    edits = tuple(
        Edit(last=end, stop_reason="eos" if end is not None and run.stop_reason == "length" else None)
        for run, end in zip(runs, ends, strict=True)
    )
    if len(fill) > 1 and len(behind) >= SHOWN and len(set(behind)) == 1:
        shown = ", ".join(map(str, behind[0][:SHOWN]))
        return Fault(f"all {len(behind)} runs with EOS go on with the same tokens ({shown} ...)", "padding", edits)
    is_batch = len({len(run.tokens) for run in runs}) == 1 and len(padded) > 1
    is_common = len(padded) > MOST * len(behind) and sum(map(len, padded)) > 1
    if len(fill) != 1 or not (is_batch or is_common):
        return _filled(runs, eos) or _filled_before(runs)
    words = f"{len(padded)} of {len(runs)} runs go on after EOS with token {fill.pop()} alone, as padding does"
    return Fault(words, "padding", edits)


def _own_eos(runs: Sequence[TokenRun]) -> set[int]:
    """EOS where it is unknown: the one token before the last one's repeats, or the one at all ends."""
    tails = [(run.tokens, _repeats(run.tokens)) for run in runs if run.ended and run.tokens]
    last = Counter(tokens[-1] for tokens, repeats in tails if repeats > 1)
    if len(last) != 1:
        return set()
    (fill,) = last
    before = Counter(tokens[-1 - repeats] for tokens, repeats in tails if 1 < repeats < len(tokens))
    single = {tokens[-1] for tokens, repeats in tails if repeats == 1}
    if len(before) == 1 and before.total() > 1 and single <= set(before):
        return set(before)
    return {fill} if single == {fill} else set()


def repeats(tokens: Sequence[int]) -> int:
    """How often the first token stands at the beginning."""
    return sum(1 for _ in takewhile(lambda token: token == tokens[0], tokens))


def _repeats(tokens: Sequence[int]) -> int:
    """How often the last token stands at the end."""
    return repeats(tokens[::-1])


def _filled(runs: Sequence[TokenRun], eos: Collection[int]) -> Fault | None:
    """Runs of one length, or few, that end in one repeated token, without EOS before it; the longest have no room."""
    ended = [run.tokens for run in runs if run.ended and run.tokens]
    lengths = {len(run.tokens) for run in runs}
    repeated = Counter(tokens[-1] for tokens in ended if _repeats(tokens) > 1)
    if len(ended) < SHOWN or SHOWN * len(lengths) > len(runs) or not repeated:
        return None
    ((fill, _),) = repeated.most_common(1)
    filled = [tokens for tokens in ended if tokens[-1] == fill]
    whole = [tokens for tokens in ended if tokens[-1] != fill]
    if fill in eos or len(filled) < 2 or (len(whole) > len(lengths) and len(lengths) > 1):
        return None
    edits = tuple(
        Edit(last=len(run.tokens) - _repeats(run.tokens)) if run.ended and run.tokens[-1:] == (fill,) else Edit()
        for run in runs
    )
    return Fault(f"{len(filled)} runs are filled up to the same length with token {fill}", "padding", edits)


def _filled_before(runs: Sequence[TokenRun]) -> Fault | None:
    """Runs that ended, all of one length, of which all but the longest begin with one token, more or less often."""
    ended = [run.tokens for run in runs if run.ended and run.tokens]
    first = Counter(tokens[0] for tokens in ended)
    if len(ended) < SHOWN or len({len(run.tokens) for run in runs}) > 1:
        return None
    ((fill, _),) = first.most_common(1)
    counts = [repeats(tokens) if tokens[0] == fill else 0 for tokens in ended]
    if counts.count(0) > 1 or len(set(counts)) < SHOWN:
        return None
    edits = tuple(
        Edit(first=min(repeats(run.tokens), len(run.tokens) - 1)) if run.ended and run.tokens[0] == fill else Edit()
        for run in runs
    )
    return Fault(f"runs are filled up to the same length with token {fill} before them", "padding", edits)


def _beginning(runs: Sequence[TokenRun], known: Known | None) -> Fault | None:
    prefix = common_prefix(runs)
    count = known.foreign(runs, prefix) if known and prefix else 0
    if known is None or not count:
        return None
    edits = (Edit(first=count),) * len(runs)
    if len(set(prefix[:count])) == 1:
        times = f" {count} times" if count > 1 else ""
        words = f"token {prefix[0]}{times}, as no run of {known.whose} does: BOS was left in"
        return Fault(f"all {len(runs)} runs begin with {words}", "bos", edits)
    shown = ", ".join(map(str, prefix[:SHOWN]))
    words = f"the same {count} tokens ({shown} ...), as no run of {known.whose} does: a prompt was left in"
    return Fault(f"all {len(runs)} runs begin with {words}", "prefix", edits)


def _vocabulary(runs: Sequence[TokenRun], known: Known | None) -> Fault | None:
    words = known.vocabulary(runs) if known else ""
    return Fault(words, None) if words else None


def _eos(runs: Sequence[TokenRun], known: Known | None) -> Fault | None:
    """Runs that say that they ended, none of them with EOS: it was left out, or has another id."""
    ended = [run.tokens for run in runs if run.ended and run.tokens]
    eos = sorted(known.eos_ids) if known else []
    if known is None or not ended or not eos or any(token in eos for run in runs for token in run.tokens):
        return None
    last = {tokens[-1] for tokens in ended}
    is_other = len(ended) > 1 or all(map(known.is_beyond, last))
    if is_other and len(last) == 1 and all(tokens.count(tokens[-1]) == 1 for tokens in ended):
        edits = tuple(Edit(last=-1, end=eos[0]) if run.ended and run.tokens else Edit() for run in runs)
        return Fault(f"all runs end with token {last.pop()}, where EOS of {known.whose} is {eos[0]}", "eos", edits)
    if not known.needs_eos:
        return None
    edits = tuple(Edit(end=eos[0]) if run.ended and run.tokens else Edit() for run in runs)
    return Fault(f"none of the {len(ended)} runs that say that they ended ends with EOS ({eos[0]})", "eos", edits)


LOOKS: Final = (_offset, _padding, _beginning, _vocabulary, _eos)
"""In this order: what moves all ids hides all else, and an end is known once the padding is gone."""
