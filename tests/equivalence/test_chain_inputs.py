"""What one config for a whole batch cannot show: rows with knobs of their own, refusals word for word, measures."""

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax

from sampler import NoiseKey, SamplingConfig, draw, pick, process
from sampler.chain.history import generated, read_history
from sampler.chain.knobs import Knobs
from sampler.chain.measure import measure
from sampler.chain.noise import gumbel_rows, random_words
from sampler.chain.penalties import token_ids
from sampler.chain.pipeline import Scores, apply_stage, as_float32, run_rows
from sampler.chain.typical import _log_softmax, running_sum
from sampler.errors import ConfigError, LogitsError
from sampler.requests import Batch
from sampler.stages import OPTIONAL_STAGES, STAGES

NEUTRAL = SamplingConfig().without(STAGES)
NOTHING = {"temperature": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "cfg_weight": 0.0}
BACKWARDS = STAGES[::-1]
KNOBS = tuple(
    {**NOTHING, **knobs}
    for knobs in (
        {}, {"temperature": 0.0}, {"temperature": 0.5, "top_k": 3},
        {"top_k": 6, "min_p": 0.3, "min_tokens_to_keep": 4},
        {"top_p": 0.5}, {"top_p": 0.0, "min_tokens_to_keep": 2}, {"min_p": 0.2}, {"cfg_weight": 0.7},
        {"cfg_weight": 0.0, "cfg_convention": "unconditional"}, {"cfg_weight": 1.3, "cfg_convention": "unconditional"},
        {"repetition_penalty": 1.7, "penalty_window": 2}, {"repetition_penalty": 0.6},
    )
)  # fmt: skip
FURTHER_KNOBS = (
    {"logit_bias": {3: 2.0, 8: -1.0}}, {"frequency_penalty": 0.5}, {"frequency_penalty": -0.5, "penalty_window": 3},
    {"presence_penalty": 0.8}, {"dry_multiplier": 0.7, "dry_allowed_length": 1}, {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1}, {"min_new_tokens": 3}, {"suppressed_tokens": (2, 7)}, {"top_n_sigma": 0.8},
    {"typical_p": 0.4}, {"typical_p": 0.2, "min_tokens_to_keep": 5}, {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02, "min_tokens_to_keep": 4}, {},
)  # fmt: skip


def alone(logits, history, configs, uncond=None, eos_ids=(), **further):
    rows = []
    for row, config in enumerate(configs):
        at = slice(row, row + 1)
        own = {name: values[at] for name, values in further.items()}
        guide = None if uncond is None else uncond[at]
        rows.append(np.array(process(logits[at], history[at], config, guide, eos_ids=eos_ids, **own)))
    return np.concatenate(rows)


@pytest.mark.parametrize("orders", [(STAGES,), (STAGES, BACKWARDS), (BACKWARDS, STAGES, ("temperature", "top_p"))])
def test_rows_of_different_knobs_and_orders_are_what_they_are_alone(orders):
    rng = np.random.default_rng(3)
    count = len(KNOBS)
    configs = [SamplingConfig(**knobs, order=(*orders[row % len(orders)],)) for row, knobs in enumerate(KNOBS)]
    logits, uncond = rng.normal(0, 2, (2, count, 9)).astype(np.float32)
    logits[0, 5] = -200
    uncond[0, 4] = -np.inf  # a row without guidance does not look at it
    history = [rng.integers(0, 9, row).tolist() for row in range(count)]
    together = np.array(process(logits, history, configs, uncond))
    np.testing.assert_array_equal(together, alone(logits, history, configs, uncond))
    np.testing.assert_array_equal(np.array(process(logits, history, configs)), alone(logits, history, configs))
    assert (together[0] == logits[0]).all()


def order_of(orders, row, knobs):
    if orders == "one":
        return {"order": (*OPTIONAL_STAGES, *STAGES)}
    backwards = orders == "own and backwards" and row % 2
    return {"order": (*(set(knobs) & set(OPTIONAL_STAGES)), *BACKWARDS)} if backwards else {}


@pytest.mark.parametrize("orders", ["one", "own", "own and backwards"])
def test_rows_of_different_processors_are_what_they_are_alone(orders):
    rng = np.random.default_rng(4)
    count = len(FURTHER_KNOBS)
    configs = [
        SamplingConfig(**NOTHING, **knobs, **order_of(orders, row, knobs)) for row, knobs in enumerate(FURTHER_KNOBS)
    ]
    logits = rng.normal(0, 1, (count, 9)).astype(np.float32)
    logits[-1, 0] = 40
    history = [rng.integers(0, 4, 6 + row % 5).tolist() for row in range(count)]
    past = {
        "prompt_length": np.arange(count) % 4,
        "step": np.arange(count) % 6,
        "uniforms": (np.arange(count) + 0.5) / count,
        "eos_ids": (0, 5),
    }
    together = np.array(process(logits, history, configs, **past))
    np.testing.assert_array_equal(together, alone(logits, history, configs, **past))
    assert (together[-1] == logits[-1]).all()


INF = np.inf
LATER = {"config": SamplingConfig(order=("min_new_tokens",), min_new_tokens=3), "eos_ids": [2]}
COUNTED = SamplingConfig(order=("frequency_penalty",), frequency_penalty=1.0)
TYPICAL = [SamplingConfig(order=("typical_p",), typical_p=mass) for mass in (1.0, 0.4)]
SURE = [SamplingConfig(order=("xtc_probability",), xtc_threshold=0.1, xtc_probability=p) for p in (1.0, 0.0)]
HOT = SamplingConfig(**{**NOTHING, "temperature": 1e-30})
FLAT, ONES = [[0.0] * 4] * 2, [[1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Without a step, all after the prompt was drawn; without a prompt, all of the history.
        ({"logits": FLAT, "history": ONES, **LATER, "prompt_length": [0, 1]}, [[0] * 4, [0, 0, -INF, 0]]),
        ({"logits": FLAT, "history": ONES, **LATER}, FLAT),
        ({"logits": FLAT, "history": ONES, **LATER, "step": 2}, [[0, 0, -INF, 0]] * 2),
        ({"logits": FLAT[:1], "history": [[1, 1, 2]], "config": COUNTED}, [[0, -2, -1, 0]]),
        # Typical-p of 1 removes nothing beside a row that filters, though one token has the mass 1 in float32.
        ({"logits": [[40, 0, 1]] * 2, "history": [[], []], "config": TYPICAL}, [[40, 0, 1], [40, -INF, -INF]]),
        # XTC's probability of 1 needs no uniform.
        ({"logits": [[0, -0.5]] * 2, "history": [[], []], "config": SURE}, [[-INF, -0.5], [0, -0.5]]),
        # An underflow removes a token.
        ({"logits": [[0.0, -1e30]], "config": HOT}, [[0, -INF]]),
        # Extremes that are no fault.
        ({"logits": np.zeros((1, 2))}, [[0, 0]]),
        ({"uniforms": [0.0]}, [[0, 1, 2]]),
        ({"uniforms": [1.0], "prompt_length": 0, "step": 0}, [[0, 1, 2]]),
        ({"history": [[0]], "prompt_length": 1}, [[0, 1, 2]]),
        ({"logits": [[-INF, 1]], "history": [[0]], "eos_ids": [0]}, [[-INF, 1]]),
    ],
)  # fmt: skip
def test_scores_of_unusual_inputs(given, expected):
    assert processed(**given) == expected


def processed(logits=((0.0, 1.0, 2.0),), history=((),), config=NEUTRAL, uncond=None, **further):
    return np.array(process(np.array(logits), history, config, uncond, **further)).tolist()


@pytest.mark.parametrize(
    ("knobs", "last_stays"),
    [
        ({"no_repeat_ngram_size": 1}, False), ({"no_repeat_ngram_size": 2}, True),
        ({"dry_multiplier": 1.0, "dry_allowed_length": 1}, True), ({"frequency_penalty": 1.0}, False),
        ({"presence_penalty": 1.0}, False), ({"repetition_penalty": 2.0}, False),
    ],
)  # fmt: skip
def test_ids_beyond_the_vocabulary_are_passed_over(knobs, last_stays):
    ((*others, last),) = processed(np.ones((1, 3)), [[2, 3, 2, 7, 2]], SamplingConfig(**{**NOTHING, **knobs}))
    assert others == [1, 1]
    assert (last == 1) == last_stays


def test_thresholds_that_are_met_exactly():
    logits = mx.array([[0.0, 0.7, 1.9, -1.1, -2.0]])
    log_p = _log_softmax(logits)
    entropy = -mx.sum(mx.exp(log_p) * log_p)
    order = mx.argsort(mx.abs(log_p + entropy), axis=-1)
    mass = np.array(running_sum(mx.take_along_axis(mx.exp(log_p), order, axis=-1)))[0]
    typical = SamplingConfig(order=("typical_p",), typical_p=float(mass[1]))
    kept = np.flatnonzero(np.array(process(logits, [[]], typical))[0] > -np.inf)
    assert kept.tolist() == sorted(np.array(order)[0, :2].tolist())
    threshold = float(np.exp(log_p[0, 0].item()))
    exact = SamplingConfig(order=("xtc_probability",), xtc_probability=1.0, xtc_threshold=threshold)
    assert (np.array(process(logits, [[]], exact))[0] == -np.inf).tolist() == [False, True, True, False, False]


def refusal(**given):
    with pytest.raises((LogitsError, ConfigError)) as error:
        processed(**given)
    return str(error.value)


LEFT = "-inf removes a token; nothing else may be infinite"
UNCONDITIONAL = SamplingConfig(order=("cfg",), cfg_convention="unconditional")
EXTREME = "all logits of the row are -inf, or the sampling parameters are extreme"
GIVE = "give uniforms, one uniform number from 0 to 1 for each row; probability 1 needs none"
NEGATIVE = "token ids are 0 or more"
WHOLE = "does not fit (expected integers >= 0, one or 1 of them)"
UNIFORMS = "do not fit (expected 1 numbers from 0 to 1, one for each row)"
SHAPE = "(expected (rows, vocabulary), neither of them 0)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *(({"history": [[]] * len(given["logits"]), **given}, f"the logits of row {row} contain NaN or +inf ({LEFT})")
          for row, given in (
              (1, {"logits": [[0, 0], [0, np.nan]]}), (0, {"logits": [[0, np.inf], [0, 0]]}),
              (0, {"logits": [[0, 0]], "uncond": [[np.inf, 0]]}), (0, {"logits": [[0.0, 1e300]]}),
              (1, {"logits": [[0, 0], [0, 0]], "uncond": [[0, 0], [np.nan, 0]]}),
              (1, {"logits": [[0, 0], [np.nan, np.nan]], "config": SamplingConfig()}),
          )),
        ({"logits": [[0, 0], [-np.inf, -np.inf]], "history": [[], []]},
         f"no token is left in row 1 after the chain, or a score overflowed ({EXTREME}: {NEUTRAL})"),
        ({"uncond": [[0, -np.inf, 0]], "config": UNCONDITIONAL},
         f"no token is left in row 0 after the chain, or a score overflowed ({EXTREME}: {UNCONDITIONAL})"),
        *(({"history": [ids]}, f"the history of row 0 contains {bad} ({NEGATIVE})")
          for ids, bad in (([-3, 0, -1], -3), (np.array([0, -2, -1]), -2), ([2**70, -(2**70)], -1))),
        ({"history": [[0, 1.5]]}, "the history of row 0 contains 1.5 (token ids are integers)"),
        ({"history": [[True]]}, "the history of row 0 contains True (token ids are integers)"),
        ({"eos_ids": [-1]}, f"eos_ids contain -1 ({NEGATIVE})"),
        ({"eos_ids": [3, -4, -5]}, f"eos_ids contain -4 ({NEGATIVE})"),
        ({"logits": [[0, 0]] * 3, "history": [[1], [1], [1, 1]], "prompt_length": [1, 0, 3]},
         "prompt_length = 3 in row 2 (its history has 2 ids)"),
        *(({name: bad}, f"{name} = {bad} {WHOLE}")
          for name, bad in (("prompt_length", -1), ("prompt_length", 0.5), ("step", -1), ("step", [1, 2]))),
        *(({"uniforms": bad}, f"uniforms = {bad} {UNIFORMS}") for bad in ([0.1, 0.2], [], [-0.1], [np.nan], [1.1])),
        ({"config": SamplingConfig(min_new_tokens=4)}, "min_new_tokens = 4 and no EOS id is known (give eos_ids)"),
        ({"config": SamplingConfig(logit_bias={1: 1, 3: 1})}, "logit_bias names the id 3 (the vocabulary has 3 ids)"),
        ({"config": SamplingConfig(suppressed_tokens=(1, 9))},
         "suppressed_tokens names the id 9 (the vocabulary has 3 ids)"),
        ({"config": SamplingConfig(xtc_probability=0.5)},
         f"xtc_probability = 0.5 in row 0 and there is no uniform number ({GIVE})"),
        ({"history": []}, "history has 0 rows (the logits have 1)"),
        ({"history": [[], []]}, "history has 2 rows (the logits have 1)"),
        ({"config": [NEUTRAL] * 2}, "config has 2 rows (the logits have 1)"),
        ({"uncond": np.zeros((1, 2))}, "uncond_logits have shape (1, 2) (expected that of the logits, (1, 3))"),
        ({"uncond": np.zeros((1, 4))}, "uncond_logits have shape (1, 4) (expected that of the logits, (1, 3))"),
        ({"uncond": np.zeros(3)}, f"uncond_logits have shape (3,) {SHAPE}"),
        ({"logits": np.zeros((0, 3)), "history": []}, f"logits have shape (0, 3) {SHAPE}"),
        ({"logits": [0.0, 1.0]}, f"logits have shape (2,) {SHAPE}"),
        ({"logits": np.zeros((1, 0))}, f"logits have shape (1, 0) {SHAPE}"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_wrong(given, expected):
    assert refusal(**given) == expected


def test_an_overflow_is_refused():
    found = refusal(logits=[[0.0, 0.0], [0.0, 1e30]], history=[[], []], config=HOT)
    assert found.startswith("no token is left in row 1 after the chain")


def test_arguments_have_these_names_and_draw_takes_one_row():
    given = {"history": [], "config": NEUTRAL, "uncond_logits": None}
    assert np.array(process(logits=np.zeros((1, 2)), **given | {"history": [[]]})).tolist() == [[0, 0]]
    assert np.array(draw(logits=np.array([0.0, -np.inf]), n=2, seed=0, **given)).tolist() == [0, 0]
    with pytest.raises(LogitsError, match=r"logits have shape \(\) \(draw takes one row, \(vocabulary,\)\)"):
        draw(np.float32(1), [], NEUTRAL, 1, 0)


def test_histories_and_arrays_of_every_kind_are_read():
    whole, empty = np.array([3, 4], dtype=np.uint64), np.array([], dtype=np.int64)
    kinds = [[], [0, 2**70], whole, empty, (5,), [np.int32(6)], range(2)]
    read = token_ids(kinds)
    assert [row.tolist() for row in read] == [[], [0, 2**62], [3, 4], [], [5], [6], [0, 1]]
    assert all(row.dtype == np.int64 for row in read)
    assert token_ids([[0, 2**63]])[0].tolist() == [0, 2**62]
    assert token_ids([np.array([0, 2**63 + 1], dtype=np.uint64)])[0].tolist() == [0, 2**62]
    seen = SamplingConfig(order=("repetition_penalty",), repetition_penalty=2.0)
    assert np.array(process(np.ones((1, 3)), [[0, 3, 4, 2**70]], seen)).tolist() == [[0.5, 1, 1]]
    with pytest.raises(LogitsError, match=r"contains np.float64.1.0"):
        token_ids([np.array([1.0, 2.0])])
    assert as_float32(mx.array([1, 2], dtype=mx.bfloat16)).dtype == mx.float32
    assert [as_float32([1, 2.5]).tolist(), as_float32([1e300]).tolist()] == [[1, 2.5], [np.inf]]


def test_stages_that_are_off_are_skipped():
    scores = np.zeros((1, 3), np.float32)

    def applied(stage, config):
        return apply_stage(stage, scores, Batch(scores, (), [config]), Knobs.of([config], 3))

    for stage, config in (
        ("top_p", NEUTRAL), ("typical_p", NEUTRAL), ("cfg", SamplingConfig()), ("alignment", SamplingConfig())
    ):  # fmt: skip
        assert applied(stage, config) is scores
    missing = r"min_new_tokens is on and the history is missing .give run_rows the context"
    with pytest.raises(ConfigError, match=missing):
        applied("min_new_tokens", SamplingConfig(min_new_tokens=2))
    unseen = np.zeros((1, 3), np.bool_)
    left = run_rows(Batch(scores, (), [NEUTRAL], seen=unseen))
    assert left.final is left.ranked
    cold = SamplingConfig(**{**NOTHING, "temperature": 0.0})
    greedy = run_rows(Batch(np.array([[0.0, 2.0, 2.0]], np.float32), (), [cold], seen=unseen))
    assert greedy.final.tolist() == [[-np.inf, 2, -np.inf]]
    assert greedy.ranked.tolist() == [[0, 2, 2]]


def test_some_rows_of_a_batch():
    ids, context = read_history([[1], [2, 3], [4, 5, 6]], [0, 1, 2], None, [7, 9], [0.1, 0.2, 0.3])
    assert context.step.tolist() == [1, 1, 1]
    configs = [NEUTRAL, SamplingConfig(), NEUTRAL]
    logits = np.arange(6.0).reshape(3, 2)
    batch = Batch(logits, ids, configs, -logits, context, seen=logits > 2)
    some = batch.only([2, 0])
    assert [row.tolist() for row in some.history] == [[4, 5, 6], [1]]
    assert (some.logits.tolist(), some.uncond_logits.tolist()) == ([[4, 5], [0, 1]], [[-4, -5], [0, -1]])
    assert (some.seen.tolist(), some.configs) == ([[True, True], [False, False]], [NEUTRAL, NEUTRAL])
    where = some.context
    assert (where.prompt_length.tolist(), where.step.tolist(), where.eos_ids) == ([2, 0], [1, 1], (7, 9))
    assert where.uniforms.tolist() == [0.3, 0.1]
    bare = Batch(logits, (), configs).only([1])
    assert (bare.history, bare.context, bare.uncond_logits, bare.seen) == ((), None, None, None)
    assert bare.config == SamplingConfig()
    ids, context = read_history([[1, 2]])
    assert (context.step.tolist(), context.eos_ids, context.uniforms) == ([2], (), None)
    with pytest.raises(ValueError, match="longer"):
        generated(Batch(logits, batch.history, [NEUTRAL], context=batch.context))


def test_measures_follow_their_definitions():
    rng = np.random.default_rng(6)
    scores = rng.normal(0, 2, (5, 7)).astype(np.float32)
    scores[1, [0, 3]] = -np.inf
    scores[2, 1:] = -np.inf
    scores[3, 2] = scores[3, 5] = 6.0
    ranked = scores.copy()
    scores[4, np.arange(7) != scores[4].argmax()] = -np.inf
    gumbel = rng.gumbel(size=scores.shape).astype(np.float32)
    greedy = np.array([False, False, False, False, True])
    raced = np.where(greedy[:, None], ranked, scores + gumbel)
    tokens = raced.argmax(-1)
    tokens[0] = raced[0].argsort()[2]
    found = measure(Scores(mx.array(scores), mx.array(ranked)), mx.array(gumbel), mx.array(tokens), mx.array(greedy))
    log_p = log_softmax(scores.astype(np.float64), axis=-1)
    rows = np.arange(5)
    with np.errstate(invalid="ignore"):
        entropy = -np.nansum(np.exp(log_p) * log_p, axis=-1)
    others = raced.copy()
    others[rows, tokens] = -np.inf
    np.testing.assert_allclose(np.array(found.logprob), log_p[rows, tokens], atol=1e-5)
    np.testing.assert_allclose(np.array(found.entropy), entropy, atol=1e-5)
    np.testing.assert_array_equal(np.array(found.rank), (scores > scores[rows, tokens][:, None]).sum(-1))
    np.testing.assert_allclose(np.array(found.margin), raced[rows, tokens] - others.max(-1), atol=1e-5)
    assert found.margin[2].item() == np.inf
    assert found.margin[4].item() < np.inf


def test_noise_by_default_is_that_of_tokens():
    key = NoiseKey(3)
    assert (key.case, key.request) == ("", 0)
    np.testing.assert_array_equal(random_words(key, 2, 5), random_words(key, 2, 5, purpose=0))
    np.testing.assert_array_equal(key.gumbel(2, 5), gumbel_rows([NoiseKey(9), key], [1, 2], 5)[1])
    assert key.uniform(2) == ((int(random_words(key, 2, 1, purpose=1)[0]) >> 12) + 0.5) * 2.0**-52
    with pytest.raises(ValueError, match="longer"):
        gumbel_rows([key], [1, 2], 5)
    with pytest.raises(AttributeError):
        key.seed = 4


def test_draws_of_every_number():
    logits = np.array([0.0, 0.5, -0.5], dtype=np.float32)
    noise = mx.array(gumbel_rows([NoiseKey(7, "", index) for index in range(520)], [0] * 520, 3))
    expected = np.array(pick(mx.array(np.tile(logits, (520, 1))), noise)).tolist()
    assert np.array(draw(logits, [], NEUTRAL, 2, 7)).dtype == np.int64
    for n in (0, 1, 255, 256, 257, 520):
        assert np.array(draw(logits, [], NEUTRAL, n, 7)).tolist() == expected[:n]


def test_draws_of_every_knob():
    logits, uncond = np.array([0.0, 9.0, 0.0], np.float32), np.array([0.0, 90.0, 0.0], np.float32)
    guided = SamplingConfig(order=("cfg",), cfg_weight=1.0)
    assert 1 not in np.array(draw(logits, [], guided, 40, 0, uncond)).tolist()
    assert set(np.array(draw(logits, [], guided, 40, 0)).tolist()) == {1}
    once = SamplingConfig(order=("presence_penalty",), presence_penalty=50.0)
    assert 1 not in np.array(draw(logits, [1], once, 40, 0)).tolist()
    assert set(np.array(draw(logits, [1], once, 40, 0, prompt_length=1)).tolist()) == {1}
    later = SamplingConfig(order=("min_new_tokens",), min_new_tokens=2)
    assert 1 not in np.array(draw(logits, [1, 1], later, 40, 0, step=1, eos_ids=[1])).tolist()
    assert set(np.array(draw(logits, [1, 1], later, 40, 0, eos_ids=[1])).tolist()) == {1}
    random = SamplingConfig(order=("xtc_probability",), xtc_probability=0.5, xtc_threshold=0.1)
    keys = [NoiseKey(2, "", index) for index in range(300)]
    both = np.array([0.0, 3.0, 2.0], np.float32)
    scores = process(np.stack([both] * 300), [[]] * 300, random, uniforms=[key.uniform(0) for key in keys])
    expected = np.array(pick(scores, mx.array(gumbel_rows(keys, [0] * 300, 3)))).tolist()
    assert np.array(draw(both, [], random, 300, 2)).tolist() == expected
