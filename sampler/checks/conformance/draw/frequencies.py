"""Whether draws follow the distribution of the chain, are independent, and depend on their seed."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.draw.at_zero import greedy
from sampler.checks.conformance.draw.cells import CHUNK, DrawCell
from sampler.checks.conformance.draw.drawer import Drawer, Tokens
from sampler.checks.conformance.draw.plan import LAGS, SINGLE_DRAWS, DrawPlan
from sampler.checks.verdict import Finding, some_ids
from sampler.errors import Unsupported
from sampler.statistics.binomial import Binomial
from sampler.statistics.judgement import MISS_RATE, Judgement, detectable_leak
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.sets import SetFrequencies

SEED_BITS = (8, 16, 24)
"""A seed may be truncated to this many bits by mistake; more than 32 bits are not required."""

SHARED = 100
"""Two calls share draws if this many consecutive ones are equal."""

Array = NDArray[np.float64]
SINGLE_CELLS = ("chain:everything", "temperature+top_p", "temperature", "nothing")
"""The first of these cells that the engine supports is also drawn with one draw per call."""


def support(drawer: Drawer, cell: DrawCell) -> Finding:
    """No token is drawn that the reference removes."""
    drawn = drawer.cell(cell)
    outside = np.flatnonzero((drawn.counts > 0) & ~drawn.expected.may[0])
    n = len(drawn.tokens)
    leak = detectable_leak(n)
    if len(outside):
        count = int(drawn.counts[outside].sum())
        kept = np.flatnonzero(drawn.expected.may[0])
        message = (
            f"{count} of {n} draws are removed tokens, {some_ids(outside)}: {count / n:.2g} in total variation, or "
            f"more; {some_ids(kept)} are kept"
        )
        return Finding("draw", "draw", "failed", n, message, count, 0.0, alpha=0.0, detectable=leak)
    message = f"{n} draws, all of them kept tokens"
    return Finding("draw", "draw", "passed", n, message, 0.0, 0.0, alpha=0.0, detectable=leak)


def frequencies(drawer: Drawer, cell: DrawCell, plan: DrawPlan) -> Finding:
    """The frequencies are those of the reference's distribution: neither too far from it nor too close to it."""
    check = plan.check(f"{cell.name}/frequencies")
    if cell.by_sets:
        return _of_sets(drawer, cell, check.detect, plan.alphas[check.name])
    drawn = drawer.cell(cell)
    test = Multinomial(drawn.probabilities, plan.alphas[check.name])
    tolerance = drawer.judge.tolerance
    if drawer.judge.rounding:  # the tolerance of float32 is far below what draws can detect
        tolerance = float(drawn.expected.tolerance[0])
    n = len(drawn.tokens)
    detectable = test.detectable(n) + tolerance
    judged = test.judge(drawn.counts)
    observed = drawn.counts / n
    token = int(np.argmax(np.abs(observed - drawn.probabilities)))
    variation = float(np.abs(observed - drawn.probabilities).sum() / 2)
    shown = (
        f"{n} draws are {variation:.3f} from the distribution in total variation; token {token} was drawn "
        f"{observed[token]:.4f} of the time, p = {drawn.probabilities[token]:.4f}"
    )
    return _statistical(judged, test.alpha, detectable, check.detect, shown, tolerance=tolerance)


def _of_sets(drawer: Drawer, cell: DrawCell, detect: float, alpha: float) -> Finding:
    """The frequencies of sets of tokens; in half precision only if its rounding leaves enough to tell."""
    tolerance = drawer.judge.tolerance
    if drawer.judge.rounding:
        rounding = float(drawer.expected(cell.probe).tolerance[0])
        if rounding > detect / 2:
            dtype = drawer.judge.info.dtype
            raise Unsupported(f"{dtype} may be off by {rounding:.2g} there, more than the draws can tell")
        tolerance += rounding
    drawn = drawer.cell(cell)
    sets = drawn.sets
    test, n = SetFrequencies(sets.probabilities, alpha, tolerance), len(drawn.tokens)
    counts = sets.counts(drawn.tokens)
    judged, worst = test.judge(counts, n)
    shown = f"{n} draws: {sets.names[worst]} {counts[worst]} times, {sets.probabilities[worst] * n:.3g} are expected"
    return _statistical(judged, alpha, test.detectable(n), detect, shown)


def _statistical(
    judged: Judgement, alpha: float, detectable: float, detect: float, shown: str, *, tolerance: float = 0.0
) -> Finding:
    allowed = replace(judged, bound=judged.bound + tolerance)
    if allowed.rejected:
        message = f"{shown} (p <= {judged.p_value:.2g})"
    elif detectable > detect:
        message = f"too few draws (detects at least {detectable:.2g}, required: {detect:g})"
    else:
        message = f"{shown} (detects at least {detectable:.2g})"
    return Finding.of_test("draw", "draw", allowed, message, alpha=alpha, detectable=detectable, required=detect)


def _pairs(plan: DrawPlan, name: str, first: Tokens, second: Tokens, probability: float, what: str) -> Finding:
    check = plan.check(name)
    test = Binomial(min(1.0, probability), plan.alphas[name])
    same = int((first == second).sum())
    judged = test.judge(same, len(first))
    shown = f"{what}: {same} of {len(first)} pairs are equal, {probability:.4f} of them are expected"
    return _statistical(judged, test.alpha, test.detectable(len(first), MISS_RATE), check.detect, shown)


def consecutive(tokens: Tokens, lag: int = 1) -> tuple[Tokens, Tokens]:
    """Disjoint pairs of draws at distance `lag`, each draw in at most one pair: (n,), (n,)."""
    usable = len(tokens) // (2 * lag) * 2 * lag
    blocks = tokens[:usable].reshape(-1, 2, lag)
    return blocks[:, 0].ravel(), blocks[:, 1].ravel()


def lagged(drawer: Drawer, plan: DrawPlan, lag: int) -> Finding:
    """Draws at distance `lag` in one call are independent."""
    drawn = drawer.cell(plan.cells[0])
    pairs = [consecutive(call, lag) for call in drawn.calls]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    probability = float(np.square(drawn.probabilities).sum())
    return _pairs(plan, f"nothing/pairs-{lag}", first, second, probability, f"draws {lag} apart")


def shifted_pairs(drawer: Drawer, plan: DrawPlan) -> Finding:
    """The second and third draw of a call, the fourth and fifth and so on are independent."""
    drawn = drawer.cell(plan.cells[0])
    inner = drawn.calls[:, 1:-1]
    probability = float(np.square(drawn.probabilities).sum())
    name = "nothing/pairs-shifted"
    return _pairs(
        plan, name, inner[:, ::2].ravel(), inner[:, 1::2].ravel(), probability, "draws 1 apart, from the second"
    )


def other_seeds(drawer: Drawer, plan: DrawPlan) -> Finding:
    """Calls with different seeds are independent, draw by draw."""
    drawn = drawer.cell(plan.cells[0])
    probability = float(np.square(drawn.probabilities).sum())
    same = _equal_calls(drawn.calls)
    if same:
        message = f"the seeds {same[0]} and {same[1]} of {len(drawn.calls)} gave the same {CHUNK} draws"
        return Finding("draw", "seed", "failed", drawn.tokens.size, message, 1.0, 0.0)
    shift = shared_draws(drawn.calls)
    if shift:
        message = f"the draws of one seed are those of the next one, moved by {shift}: neighbours share their draws"
        return Finding("draw", "seed", "failed", drawn.tokens.size, message, 1.0, 0.0)
    found = _pairs(plan, "nothing/seeds", drawn.calls[::2].ravel(), drawn.calls[1::2].ravel(), probability, "two seeds")
    return replace(found, stage="seed")


def _equal_calls(calls: Tokens) -> tuple[int, int] | None:
    """The indices of two calls with all draws equal."""
    _, first, inverse = np.unique(calls, axis=0, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse.ravel()] != np.arange(len(calls)))
    return (int(first[inverse.ravel()[again[0]]]), int(again[0])) if len(again) else None


def shared_draws(calls: Tokens) -> int:
    """By how many draws two calls (calls, n) of neighbouring seeds are shifted; 0 if they share none.

    A hundred consecutive draws are compared: independent ones are never all equal.
    """
    for first, second in itertools.pairwise(calls):
        for one, other in ((first, second), (second, first)):
            windows = np.lib.stride_tricks.sliding_window_view(one, SHARED)
            found = np.flatnonzero((windows == other[:SHARED]).all(axis=1))
            if len(found) and found[0] and len(np.unique(other[:SHARED])) > 1:
                return int(found[0])
    return 0


def same_seed(drawer: Drawer, plan: DrawPlan) -> Finding:
    """The same seed gives the same tokens."""
    probe = plan.cells[0].probe
    seed = 17 + 1_000 * plan.seed
    first, second = (drawer.draw(probe, 200, seed) for _ in range(2))
    same = int((first == second).sum())
    if same < len(first):
        message = f"the same seed gave the same token {same} of {len(first)} times"
        return Finding("draw", "seed", "failed", len(first), message, len(first) - same, 0.0)
    for bits in SEED_BITS:
        if (first == drawer.draw(probe, 200, seed + 2**bits)).all():
            message = f"the seeds {seed} and {seed + 2**bits} gave the same {len(first)} draws: only {bits} bits count"
            return Finding("draw", "seed", "failed", len(first), message, 1.0, 0.0)
    return Finding("draw", "seed", "passed", len(first), f"{len(first)} draws repeated by their seed", 0.0, 0.0)


def worker_thread(drawer: Drawer, plan: DrawPlan) -> Finding:
    """A worker thread draws the same tokens as the main thread with that seed."""
    probe = plan.cells[0].probe
    seed = 23 + 1_000 * plan.seed
    here = drawer.draw(probe, 200, seed)
    there = drawer.draw(probe, 200, seed, thread=True)
    different = int((here != there).sum())
    if different:
        only = "; there all of them are one token" if len(set(there.tolist())) == 1 else ""
        message = f"{different} of 200 draws differ in a worker thread with the same seed{only}"
        return Finding("draw", "draw" if only else "seed", "failed", 200, message, different, 0.0)
    return Finding("draw", "draw", "passed", 200, "200 draws are the same in a worker thread", 0.0, 0.0)


def _most_that_it_does(drawer: Drawer, plan: DrawPlan) -> DrawCell:
    """The first cell of SINGLE_CELLS that the engine supports; raises Unsupported if there is none."""
    for name in SINGLE_CELLS:
        with contextlib.suppress(Unsupported):
            drawer.judge.asked(plan.cell(name).probe.config)
            return plan.cell(name)
    raise Unsupported(f"none of {', '.join(SINGLE_CELLS)} can be asked for")


def single_draws(drawer: Drawer, plan: DrawPlan) -> tuple[Finding, Finding]:
    """Calls of one draw with consecutive seeds: their frequencies, and whether neighbours are independent."""
    cell = _most_that_it_does(drawer, plan)
    expected = drawer.judge.expect(cell.probe.with_config(drawer.judge.asked(cell.probe.config)))
    probabilities = np.asarray(softmax(expected.scores[0]))
    first_seed = 2_000_003 * plan.seed
    tokens = np.concatenate([drawer.draw(cell.probe, 1, seed) for seed in range(first_seed, first_seed + SINGLE_DRAWS)])
    outside = tokens[~expected.may[0][tokens]]
    check = plan.check("chain:everything/single-draws")
    test = Multinomial(probabilities, plan.alphas[check.name])
    counts = np.bincount(tokens, minlength=len(probabilities))
    if len(outside):
        message = f"{len(outside)} of {len(tokens)} single draws are removed tokens, {some_ids(np.unique(outside))}"
        first = Finding("draw", "draw", "failed", len(tokens), message, len(outside), 0.0, alpha=0.0)
    else:
        worst = int(np.argmax(np.abs(counts / len(tokens) - probabilities)))
        shown = (
            f"calls of one draw with seeds {first_seed} to {first_seed + len(tokens) - 1}: token {worst} "
            f"{counts[worst]} times, {probabilities[worst] * len(tokens):.0f} are expected"
        )
        first = _statistical(test.judge(counts), test.alpha, test.detectable(len(tokens)), check.detect, shown)
    probability = float(np.square(probabilities).sum())
    second = _pairs(
        plan, "chain:everything/single-pairs", tokens[::2], tokens[1::2], probability, "seeds next to each other"
    )
    return first, replace(second, stage="seed")


def ranks(drawer: Drawer, plan: DrawPlan) -> Finding:
    """Over a whole vocabulary: the rank of the drawn token has the right distribution function."""
    drawn = drawer.cell(plan.cell("vocabulary/ranks"))
    probabilities = drawn.probabilities
    order = np.argsort(-probabilities, kind="stable")
    rank = np.argsort(order, kind="stable").astype(np.float64)
    test = DistributionFunction(plan.alphas["vocabulary/ranks"])
    judged = test.judge(rank[drawn.tokens], rank, probabilities)
    shown = f"the distribution function of the rank is off by {judged.statistic:.4f}"
    detect = plan.check("vocabulary/ranks").detect
    return _statistical(judged, test.alpha, test.detectable(len(drawn.tokens)), detect, shown)


OtherCheck = tuple[tuple[str, ...], Callable[[], tuple[Finding, ...]]]
"""The cases (cell/check) that a check answers, and the check."""


def other_checks(drawer: Drawer, plan: DrawPlan) -> Iterator[OtherCheck]:
    """Every check of level `draw` except support and frequencies."""

    def one(case: str, check: Callable[..., Finding], *more: int) -> OtherCheck:
        return (case,), lambda: (check(drawer, plan, *more),)

    yield one("temperature/greedy", greedy)
    yield one("nothing/same-seed", same_seed)
    yield one("nothing/worker-thread", worker_thread)
    for lag in LAGS:
        yield one(f"nothing/pairs-{lag}", lagged, lag)
    yield one("nothing/pairs-shifted", shifted_pairs)
    yield one("nothing/seeds", other_seeds)
    yield ("chain:everything/single-draws", "chain:everything/single-pairs"), lambda: single_draws(drawer, plan)
    yield one("vocabulary/ranks", ranks)
