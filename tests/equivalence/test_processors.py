"""The further processors against float64 from their definitions, HuggingFace, mlx-lm and worked examples."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from sampler import SamplingConfig, process
from sampler.chain.optional import OPTIONAL as CHAIN
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.huggingface.optional import OPTIONAL as HUGGINGFACE_HAS
from sampler.engines.reference.optional import OPTIONAL as REFERENCE_HAS
from sampler.errors import LogitsError, Unsupported
from sampler.requests import Context
from sampler.stages import OPTIONAL_STAGES, STAGES
from tests.support import REFERENCE, chain_inputs, configs, kept_bounds

HUGGINGFACE = HuggingFaceEngine()
NOTHING = {"temperature": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "cfg_weight": 0.0}

KNOBS = {
    "logit_bias": st.dictionaries(st.integers(0, 1), st.floats(-8, 8, width=32), min_size=1),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "dry_multiplier": st.floats(0, 3),
    "no_repeat_ngram_size": st.integers(1, 4),
    "min_new_tokens": st.integers(1, 40),
    "suppressed_tokens": st.just((1,)),
    "top_n_sigma": st.floats(0.1, 4),
    "typical_p": st.floats(0.05, 1),
    "xtc_probability": st.one_of(st.just(1.0), st.floats(0, 1)),
}
BESIDE = {
    "penalty_window": st.sampled_from([0, 0, 1, 5, 20]),
    "dry_base": st.sampled_from([1.0, 1.2, 1.75, 3.0]),
    "dry_allowed_length": st.integers(1, 3),
    "dry_breakers": st.sampled_from([(), (0,), (0, 2)]),
    "xtc_threshold": st.one_of(st.just(0.1), st.floats(0.001, 0.5)),
}


@st.composite
def further_configs(draw_from, stages=OPTIONAL_STAGES, base=configs()):  # noqa: B008 - a strategy is a constant
    on = draw_from(st.lists(st.sampled_from(stages), min_size=1, max_size=4, unique=True))
    knobs = {name: draw_from(KNOBS[name]) for name in on} | draw_from(st.fixed_dictionaries(BESIDE))
    config = draw_from(base)
    names = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "cfg_weight", "min_tokens_to_keep"]
    seven = {name: getattr(config, name) for name in names}
    if config.order == STAGES or draw_from(st.booleans()):
        return SamplingConfig(**seven, **knobs)
    return SamplingConfig(**seven, **knobs, order=draw_from(st.permutations([*config.order, *on])))


@st.composite
def past_inputs(draw_from):
    logits, uncond, history = draw_from(chain_inputs())
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    if draw_from(st.booleans()):  # few different ids, so that sequences come again
        history = [rng.integers(0, min(3, logits.shape[1]), len(row)).tolist() for row in history]
    lengths = np.array([len(row) for row in history], dtype=np.int64)
    prompt = rng.integers(0, lengths + 1)
    context = Context(prompt, lengths - prompt, (int(rng.integers(logits.shape[1])), 10**6), rng.random(len(history)))
    return logits, uncond, history, context


def neutral(**knobs) -> SamplingConfig:
    return SamplingConfig(**NOTHING, **knobs)


def scores_of(logits, history, config, uncond=None, context=None) -> np.ndarray:
    return np.array(process(logits, history, config, uncond, **({} if context is None else context._asdict())))


def disagreement(left, right, bounds, tolerance=2e-6) -> str:
    must, may = bounds
    for scores in (left, right):
        kept = scores > -np.inf
        if (must & ~kept).any() or (kept & ~may).any():
            return f"kept sets: {np.argwhere(must & ~kept).tolist()} missing, {np.argwhere(kept & ~may).tolist()} more"
    decided = (must == may).all(axis=-1) & must.any(axis=-1)
    difference = np.abs(softmax(left[decided].astype(float), -1) - softmax(right[decided].astype(float), -1))
    return "" if difference.max(initial=0) < tolerance else f"probabilities by {difference.max()}"


def answered(engine, *inputs):
    try:
        scores = engine(*inputs)
    except LogitsError as error:
        assert "no token is left" in str(error)  # noqa: PT017 - a refusal is one of two right answers
        return None
    return scores if (scores > -np.inf).any(axis=-1).all() else None


def assert_agree(oracle, inputs, config):
    logits, uncond, history, context = inputs
    expected = answered(oracle, logits, history, config, uncond, context)
    must, may = kept_bounds(logits, history, config, uncond, context)
    if not must.any(axis=-1).all():  # a row of which nothing is required, or of which nothing is left
        return
    found = answered(scores_of, logits, history, config, uncond, context)
    assert expected is not None
    assert found is not None
    assert disagreement(found, expected, (must, may)) == ""


@given(past_inputs(), further_configs())
def test_processors_equal_their_definitions(inputs, config):
    assert_agree(REFERENCE.process, inputs, config)


@pytest.mark.parametrize("stage", OPTIONAL_STAGES)
@given(st.data(), past_inputs())
def test_each_processor_alone_equals_its_definition(stage, data, inputs):
    knobs = {stage: data.draw(KNOBS[stage])} | data.draw(st.fixed_dictionaries(BESIDE))
    assert_agree(REFERENCE.process, inputs, neutral(**knobs))


@given(past_inputs(), further_configs(sorted(HUGGINGFACE_HAS), configs(exact_only=True)))
def test_processors_equal_huggingface(inputs, config):
    assert_agree(HUGGINGFACE.process, inputs, config)


@given(past_inputs(), st.sampled_from([1, 2, 5]), st.floats(0.05, 0.95))
def test_typical_keeps_as_many_as_huggingface(inputs, least, mass):
    config = SamplingConfig(order=("typical_p",), typical_p=mass, min_tokens_to_keep=least)
    assert_agree(HUGGINGFACE.process, inputs, config)


def test_huggingface_says_what_it_lacks():
    lacking = set(OPTIONAL_STAGES) - set(HUGGINGFACE_HAS)
    assert lacking == {"frequency_penalty", "presence_penalty", "dry_multiplier", "top_n_sigma", "xtc_probability"}
    for stage in lacking:
        assert stage not in HUGGINGFACE.info.supports
        with pytest.raises(Unsupported, match=f"transformers has no {stage}"):
            HUGGINGFACE.process(np.zeros((1, 3), np.float32), [[]], SamplingConfig(**{stage: 1.0}))


@given(past_inputs(), st.floats(-2, 2), st.floats(-2, 2), st.floats(0.5, 3), st.sampled_from([3, 10, 10_000]))
def test_penalties_equal_those_of_mlx_lm(inputs, presence, frequency, repetition, size):
    """mlx-lm has a window for each penalty, no prompt, and takes one row at a time."""
    utils = pytest.importorskip("mlx_lm.sample_utils")
    logits, _, history, _ = inputs
    config = SamplingConfig(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency,
        penalty_window=size, order=("repetition_penalty", "presence_penalty", "frequency_penalty"),
    )  # fmt: skip
    processors = utils.make_logits_processors(None, repetition, size, presence, size, frequency, size)
    ours = scores_of(logits, history, config)
    for row, ids in enumerate(history):
        scores, seen = mx.array(logits[row : row + 1]), ids[-size:]
        for each in processors:
            # Its assignment by index takes one of several equal ids, so each is given once where it counts once.
            counted = seen if "frequency" in each.__name__ else sorted(set(seen))
            scores = each(mx.array(counted, dtype=mx.int32), scores)
        theirs = np.array(scores)[0].astype(float)
        np.testing.assert_allclose(softmax(ours[row].astype(float)), softmax(theirs), atol=2e-6)


@given(past_inputs(), st.floats(0.001, 0.5))
def test_xtc_equals_that_of_mlx_lm(inputs, threshold):
    """One row at a time, and with the probability at which its uniform says yes; it keeps p equal to the threshold."""
    utils = pytest.importorskip("mlx_lm.sample_utils")
    logits, _, history, _ = inputs
    config = SamplingConfig(order=("xtc_probability",), xtc_probability=1, xtc_threshold=threshold)
    mx.disable_compile()  # it would be compiled for each threshold, which takes a second
    try:
        theirs = np.array(utils.apply_xtc(mx.array(logits), 1.0, threshold, []))
    finally:
        mx.enable_compile()
    bounds = kept_bounds(logits, history, config)
    assert disagreement(scores_of(logits, history, config), theirs, bounds) == ""


def dry_by_brute_force(scores, history, config):
    """For each token: the longest end of the history, without breakers, that once stood before this token."""
    result, breakers = scores.astype(np.float64), set(config.dry_breakers)
    for token in set(range(len(scores))) - breakers:
        longest = 0
        for length in range(1, len(history)):
            end = history[len(history) - length :]
            if set(end) & breakers:
                break
            if any(history[at : at + length + 1] == [*end, token] for at in range(len(history) - length)):
                longest = length
        if longest >= config.dry_allowed_length:
            result[token] -= config.dry_multiplier * config.dry_base ** (longest - config.dry_allowed_length)
    return result


@given(
    st.lists(st.integers(0, 3), max_size=14),
    st.floats(0.1, 2),
    st.sampled_from([1.0, 1.5, 2.0]),
    st.integers(1, 3),
    st.sampled_from([(), (0,), (1, 3)]),
)
def test_dry_equals_a_search_for_every_token(history, multiplier, base, allowed, breakers):
    logits = np.linspace(-1, 1, 4, dtype=np.float32)
    config = neutral(dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed, dry_breakers=breakers)
    expected = dry_by_brute_force(logits, history, config)
    for engine in (scores_of, REFERENCE.process):
        np.testing.assert_allclose(engine(logits[None], [history], config)[0], expected, rtol=1e-5, atol=1e-5)


@given(past_inputs(), configs())
def test_knobs_that_are_off_change_nothing(inputs, config):
    logits, uncond, history, context = inputs
    named = SamplingConfig(order=tuple(OPTIONAL_STAGES))
    np.testing.assert_array_equal(scores_of(logits, history, named, None, context), logits)
    np.testing.assert_array_equal(
        answered(scores_of, logits, history, config, uncond, context),
        answered(scores_of, logits, history, config, uncond),
    )


@given(past_inputs(), st.lists(st.one_of(configs(), further_configs()), min_size=4, max_size=4), st.booleans())
def test_a_row_has_its_own_parameters_and_ignores_its_neighbours(inputs, configurations, guided):
    logits, uncond, history, context = inputs
    uncond = uncond if guided else None
    chosen = [neutral() if row == 1 else config for row, config in enumerate(configurations[: len(logits)])]
    alone = []
    for row, config in enumerate(chosen):
        at = slice(row, row + 1)
        own = Context(context.prompt_length[at], context.step[at], context.eos_ids, context.uniforms[at])
        alone.append(answered(scores_of, logits[at], history[at], config, uncond[at] if guided else None, own))
    if any(row is None for row in alone):
        return
    np.testing.assert_array_equal(scores_of(logits, history, chosen, uncond, context), np.concatenate(alone))


@given(past_inputs(), st.one_of(configs(), further_configs()))
def test_process_is_pure(inputs, config):
    logits, uncond, history, context = inputs
    saved, array = (logits.copy(), uncond.copy(), [list(row) for row in history]), mx.array(logits)
    first, second = (answered(scores_of, given, history, config, uncond, context) for given in (array, logits))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, answered(scores_of, array, history, config, uncond, context))
    for found, expected in zip((array, logits, uncond), (*saved[:1], *saved[:2]), strict=True):
        np.testing.assert_array_equal(np.array(found), expected)
    assert history == saved[2]


INF = np.inf
TWICE = [0, 1, 2, 3, 2, 0, 1, 2]
"""It ends with "0 1 2", which stood before 3, and "2" stood before 0 as well."""
EXAMPLES = [
    # Counts of what was generated: 0 twice, 1 once; the 1 of the prompt does not count.
    ({"frequency_penalty": 0.5}, [1.0, 1.0, 1.0], [1, 0, 0, 1], 1, [0.0, 0.5, 1.0]),
    ({"presence_penalty": 0.5}, [1.0, -1.0, 1.0], [2, 0, 0, 1], 1, [0.5, -1.5, 1.0]),
    # The last two ids alone are seen.
    ({"frequency_penalty": 1.0, "penalty_window": 2}, [3.0, 3.0, 3.0], [0, 0, 0, 1], 0, [2.0, 2.0, 3.0]),
    ({"repetition_penalty": 2.0, "penalty_window": 1}, [4.0, 4.0, 4.0], [0, 0, 1], 2, [4.0, 2.0, 4.0]),
    ({"logit_bias": {0: -1.5, 2: 2.0}}, [1.0, 1.0, -INF], [], 0, [-0.5, 1.0, -INF]),
    ({"suppressed_tokens": (0, 2)}, [1.0, 1.0, 2.0, 3.0], [], 0, [-INF, 1.0, -INF, 3.0]),
    # Two of three new tokens are there, so both EOS ids (1 and 2) are still removed; at three they are not.
    ({"min_new_tokens": 3}, [0.0, 1.0, 2.0], [0, 0, 0], 1, [0.0, -INF, -INF]),
    ({"min_new_tokens": 2}, [0.0, 1.0, 2.0], [0, 0, 0], 1, [0.0, 1.0, 2.0]),
    # After "0 1" came 2 and 3, and the history ends with "0 1".
    ({"no_repeat_ngram_size": 3}, [0.0, 1.0, 2.0, 3.0, 4.0], [0, 1, 2, 0, 1, 3, 0, 1], 0, [0.0, 1.0, -INF, -INF, 4.0]),
    ({"no_repeat_ngram_size": 1}, [0.0, 1.0, 2.0], [1], 0, [0.0, -INF, 2.0]),
    ({"no_repeat_ngram_size": 3}, [0.0, 1.0, 2.0], [1], 0, [0.0, 1.0, 2.0]),
    # "0 1 2" stood before 3: length 3; "2" stood before 0: length 1, which is not yet punished.
    ({"dry_multiplier": 0.5, "dry_base": 2.0}, [0.0] * 4, TWICE, 0, [0.0, 0.0, 0.0, -1.0]),
    # With 1 as a breaker only "2" is left of it, and it is shorter than what is allowed; with allowed 1, 0 and 3 pay.
    ({"dry_multiplier": 0.5, "dry_breakers": (1,)}, [0.0] * 4, TWICE, 0, [0.0] * 4),
    ({"dry_multiplier": 0.5, "dry_breakers": (1,), "dry_allowed_length": 1}, [0.0] * 4, TWICE, 0, [-0.5, 0, 0, -0.5]),
    # A breaker is never punished itself.
    ({"dry_multiplier": 0.5, "dry_breakers": (3,), "dry_allowed_length": 1}, [0.0] * 4, TWICE, 0, [-0.5, 0, 0, 0]),
    # Mean 1, deviation 1 of (2, 2, 0, 0): one deviation below the largest is 1. The removed token does not count.
    ({"top_n_sigma": 1.0}, [2.0, 2.0, 0.0, 0.0, -INF], [], 0, [2.0, 2.0, -INF, -INF, -INF]),
    ({"top_n_sigma": 2.5}, [2.0, 2.0, 0.0, 0.0, -INF], [], 0, [2.0, 2.0, 0.0, 0.0, -INF]),
    ({"top_n_sigma": 1.0}, [5.0, 5.0], [], 0, [5.0, 5.0]),
    # p = (.5, .25, .125, .125), entropy 1.75 bits: the surprises 1, 2, 3, 3 are .75, .25, 1.25, 1.25 away. 1 comes
    # first, with .25 of the mass; 0 crosses .5 and stays; at .25 the first one alone reaches it.
    ({"typical_p": 0.5}, np.log([0.5, 0.25, 0.125, 0.125]), [], 0, [np.log(0.5), np.log(0.25), -INF, -INF]),
    ({"typical_p": 0.2}, np.log([0.5, 0.25, 0.125, 0.125]), [], 0, [-INF, np.log(0.25), -INF, -INF]),
    ({"typical_p": 0.8}, np.log([0.5, 0.25, 0.125, 0.125]), [], 0, np.log([0.5, 0.25, 0.125, 0.125])),
    # .4, .3 and .2 reach .15: .2 alone of them stays, with what is below.
    ({"xtc_probability": 1, "xtc_threshold": 0.15}, [-1.2, -0.9, -2.3, -1.6], [], 0, [-INF, -INF, -2.3, -1.6]),
    # One token reaches it: nothing is removed.
    ({"xtc_probability": 1, "xtc_threshold": 0.4}, np.log([0.5, 0.3, 0.2]), [], 0, np.log([0.5, 0.3, 0.2])),
    # The least likely of those that reach it comes twice: both stay.
    ({"xtc_probability": 1}, np.log([0.5, 0.25, 0.25]), [], 0, [-INF, *np.log([0.25, 0.25])]),
    # Two must stay, and one would.
    ({"xtc_probability": 1, "min_tokens_to_keep": 2}, np.log([0.6, 0.4]), [], 0, np.log([0.6, 0.4])),
]  # fmt: skip


@pytest.mark.parametrize(("knobs", "logits", "history", "prompt", "expected"), EXAMPLES)
def test_worked_examples(knobs, logits, history, prompt, expected):
    config = SamplingConfig(**NOTHING | knobs)
    logits = np.array([logits], dtype=np.float32)
    context = Context(np.array([prompt]), np.array([len(history) - prompt]), (1, 2))
    engines = [scores_of, REFERENCE.process]
    if not config.active_stages() - HUGGINGFACE.info.supports:
        engines.append(HUGGINGFACE.process)
    for engine in engines:
        np.testing.assert_allclose(engine(logits, [history], config, None, context)[0], expected, rtol=1e-6, atol=1e-7)


def test_a_long_loop_costs_no_infinity():
    logits, history = np.zeros((1, 3), np.float32), [[1] * 1000]
    config = SamplingConfig(order=("dry_multiplier", "temperature"), dry_multiplier=5, dry_base=100, temperature=0.1)
    for engine in (scores_of, REFERENCE.process):
        assert engine(logits, history, config)[0].tolist() == [0, pytest.approx(-1e31), 0]


def test_every_stage_of_the_contract_stands_in_the_tables():
    assert STAGES == ("cfg", "alignment", "repetition_penalty", "temperature", "top_k", "min_p", "top_p")
    assert tuple(CHAIN) == tuple(REFERENCE_HAS) == OPTIONAL_STAGES


@pytest.mark.parametrize("uniform", [0.0, 0.29, 0.31, 1.0])
def test_a_uniform_decides_for_its_row(uniform):
    logits = np.log(np.array([[0.6, 0.4]] * 2, dtype=np.float32))
    config = SamplingConfig(order=("xtc_probability",), xtc_probability=0.3)
    kept = np.array(process(logits, [[], []], config, uniforms=[uniform, 0.1])) > -np.inf
    assert kept.tolist() == [[uniform > 0.3, True], [False, True]]


def test_the_core_engine_takes_a_context():
    core = CoreEngine.load(width=1)
    logits = np.array([[0.0, 50.0]], dtype=np.float32)
    context = Context(np.array([0]), np.array([1]), (1,))
    config = SamplingConfig(order=("min_new_tokens",), min_new_tokens=2)
    assert core.process(logits, [[0]], config, None, context).tolist() == [[0.0, -np.inf]]
    assert core.draw(logits[0], [0], config, 2, 0, None, context).tolist() == [0, 0]


# Wrong processors: each differs in one thing from the right one, and the comparison has to detect it.


def with_past(change):
    return lambda logits, history, config, past: scores_of(logits, history, config, None, change(past))


def with_knobs(**knobs):
    return lambda logits, history, config, past: scores_of(logits, history, neutral(**knobs), None, past)


def typical_off_by_one(logits, history, config, past):
    result = logits.copy()
    for row, scores in enumerate(logits):
        logs = log_softmax(scores.astype(float))
        finite = logs > -np.inf
        entropy = -(np.exp(logs[finite]) * logs[finite]).sum()
        order = np.argsort(np.abs(-logs - entropy))
        count = max(1, int((np.cumsum(np.exp(logs[order])) < config.typical_p).sum()))
        result[row, order[count:]] = -np.inf
    return result


def xtc_over_the_batch(logits, history, config, past):
    probabilities = softmax(logits.astype(float), -1)
    least = np.where(probabilities > config.xtc_threshold, probabilities, np.inf).min()
    return without(logits, probabilities > least)


def of_rows(logits, name, **given):
    return np.array([[getattr(row[row > -np.inf], name)(**given)] for row in logits])


def without(logits, removed):
    return np.where(removed, -np.inf, logits)


DRY, END = {"dry_multiplier": 0.5, "dry_breakers": (0,)}, {"min_new_tokens": 6}
SIGMA, TWO_SEEN = {"top_n_sigma": 1.0}, {"penalty_window": 2}
WRONG = {
    "N11: the crossing token is left out, as in transformers before 4.36": ({"typical_p": 0.6}, typical_off_by_one),
    "N17: the least likely token is looked for in the whole batch": ({"xtc_probability": 1}, xtc_over_the_batch),
    "N18: the threshold is not passed on":
        ({"xtc_probability": 1}, lambda logits, *_: without(logits, logits > of_rows(logits, "min"))),
    "N20: one uniform for all rows":
        ({"xtc_probability": 0.5}, with_past(lambda past: past._replace(uniforms=past.uniforms[[0, 0, 0]]))),
    "P08: the presence penalty sees the prompt": ({"presence_penalty": 0.4}, with_past(lambda past: None)),
    "P08: the frequency penalty sees the prompt": ({"frequency_penalty": 0.4}, with_past(lambda past: None)),
    "P11: the whole history is seen": ({"presence_penalty": 0.4} | TWO_SEEN, with_knobs(presence_penalty=0.4)),
    "the frequency penalty is subtracted once": ({"frequency_penalty": 0.4}, with_knobs(presence_penalty=0.4)),
    "E01: one of several EOS ids is removed": (END, with_past(lambda past: past._replace(eos_ids=past.eos_ids[:1]))),
    "E04: the EOS id is -1, the last of the vocabulary":
        (END, lambda logits, _, config, past: without(logits, (past.step < 6)[:, None] & (np.arange(12) == 11))),
    "E05: the length of the whole history is compared":
        (END, with_past(lambda past: Context(0 * past.step, past.prompt_length + past.step, past.eos_ids))),
    "the deviation divides by one less":
        (SIGMA, lambda logits, *_: without(logits, logits < of_rows(logits, "max") - of_rows(logits, "std", ddof=1))),
    "sigma is measured from the mean":
        (SIGMA, lambda logits, *_: without(logits, logits < of_rows(logits, "mean") - of_rows(logits, "std"))),
    "one id too few is compared": ({"no_repeat_ngram_size": 3}, with_knobs(no_repeat_ngram_size=2)),
    "the exponent of DRY counts the new token":
        (DRY, with_knobs(dry_multiplier=0.5 * SamplingConfig().dry_base, dry_breakers=(0,))),
    "repeats run across breakers": (DRY, with_knobs(dry_multiplier=0.5)),
}  # fmt: skip


def batches():
    rng = np.random.default_rng(11)
    for _ in range(20):
        logits = rng.normal(0, 1.5, (3, 12)).astype(np.float32)
        logits[:, rng.integers(12)] = -np.inf
        history = [rng.integers(0, 3, 9).tolist() for _ in range(3)]
        prompt = rng.integers(1, 7, 3)
        yield logits, None, history, Context(prompt, 9 - prompt, (3, 4), rng.random(3))


@pytest.mark.parametrize(("knobs", "wrong"), WRONG.values(), ids=WRONG)
def test_a_wrong_processor_is_detected_and_the_right_one_is_not(knobs, wrong):
    config = neutral(**knobs)
    seen = 0
    for logits, uncond, history, context in batches():
        bounds = kept_bounds(logits, history, config, uncond, context)
        expected = REFERENCE.process(logits, history, config, uncond, context)
        seen += disagreement(wrong(logits, history, config, context), expected, bounds) != ""
        assert disagreement(scores_of(logits, history, config, uncond, context), expected, bounds) == ""
    assert seen >= 2
