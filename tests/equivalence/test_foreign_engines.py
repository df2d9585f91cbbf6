"""mlx-lm and mlx-audio as engines: their scores are their dialect's in float64, and their samplers draw from them."""

import sys
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from sampler import SamplingConfig
from sampler.engines.base import Draws, EngineError, Processes
from sampler.engines.capabilities import offered
from sampler.engines.load import load_engine
from sampler.engines.mlx.audio import MlxAudioEngine
from sampler.engines.mlx.lm import MlxLmEngine
from sampler.engines.mlx.sampling import ORDER, Source
from sampler.engines.registry import ENGINES, known_engines
from sampler.errors import LogitsError, MissingPackage, Unsupported
from sampler.statistics.multinomial import Multinomial

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "cfg_weight": 0.0}
ALL_ON = {"temperature": 2.0, "top_k": 6, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3}


def knobs(**values) -> SamplingConfig:
    return SamplingConfig(**{**NEUTRAL, "order": ORDER, **values})


@pytest.fixture(scope="module", params=[MlxLmEngine, MlxAudioEngine], ids=["mlx-lm", "mlx-audio"])
def kind(request):
    try:
        request.param()
    except MissingPackage as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def engine(kind):
    return kind()


def dialect(logits, ids, config, name, slack=0.0):
    """Scores of one row by hand: penalty, log-softmax, top-p, min-p, top-k, temperature. slack moves thresholds."""
    scores = np.array(logits, dtype=np.float64)
    for token in set(ids):
        scores[token] *= config.repetition_penalty if scores[token] < 0 else 1 / config.repetition_penalty
    scores = log_softmax(scores)
    if config.top_p < 1:
        descending = np.argsort(-scores, kind="stable")
        above = np.cumsum(np.exp(scores[descending])) - np.exp(scores[descending])
        kept = descending[above < config.top_p + slack]
        removed = ~np.isin(np.arange(len(scores)), kept)
        if name == "mlx-lm":
            removed &= scores < scores[kept].min()
        scores[removed] = -np.inf
    if config.min_p > 0:
        spared = np.argsort(-scores, kind="stable")[: config.min_tokens_to_keep]
        removed = scores < scores.max() + np.log(config.min_p) - slack
        removed[spared] = False
        scores[removed] = -np.inf
    if config.top_k > 0:
        scores[np.argsort(-scores, kind="stable")[config.top_k :]] = -np.inf
    return scores / config.temperature


def name_of(config):
    return "+".join(f"{name}:{getattr(config, name)}" for name in NEUTRAL if getattr(config, name) != NEUTRAL[name])


CONFIGS = [
    knobs(temperature=0.7), knobs(top_k=1), knobs(top_k=6), knobs(top_p=0.3), knobs(top_p=0.9), knobs(min_p=0.1),
    knobs(min_p=1.0), knobs(min_p=0.5, min_tokens_to_keep=5), knobs(repetition_penalty=1.7),
    knobs(repetition_penalty=0.6), knobs(top_p=0.9, temperature=3.0), knobs(**ALL_ON),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_scores_are_the_dialect_in_float64(engine, config):
    rng = np.random.default_rng(0)
    for size in (7, 8, 40, 1000):
        for scale in (0.1, 1.0, 5.0):
            logits = rng.normal(scale=scale, size=(3, size)).astype(np.float32)
            logits[1, rng.integers(size, size=2)] = -np.inf
            history = [rng.integers(size, size=60).tolist(), [0, 0, 1, size - 1], []]
            scores = engine.process(logits, history, config)
            for row, ids, found in zip(logits, history, scores, strict=True):
                strict, loose = (dialect(row, ids, config, engine.info.dialect, slack) for slack in (-2e-6, 2e-6))
                kept = found > -np.inf
                assert (np.isfinite(strict) <= kept).all()
                assert (kept <= np.isfinite(loose)).all()
                np.testing.assert_allclose(found[kept], loose[kept], rtol=2e-6, atol=5e-6)


def test_ties(engine):
    flat = np.zeros((1, 6), dtype=np.float32)
    assert (engine.process(flat, [[]], knobs(top_k=2)) > -np.inf).sum() == 2
    expected = {"mlx-lm": 6, "mlx-audio": 3}[engine.info.dialect]
    assert (engine.process(flat, [[]], knobs(top_p=0.5)) > -np.inf).sum() == expected


def test_greedy_leaves_the_first_of_the_maxima_and_reads_no_filter(engine):
    logits = np.float32([[0, 2, 2, 1], [3, 0, 0, 0]])
    scores = engine.process(logits, [[], [0]], knobs(temperature=0.0, top_p=0.0, top_k=9, repetition_penalty=100.0))
    assert [np.flatnonzero(row > -np.inf).tolist() for row in scores] == [[1], [0]]
    assert engine.draw(logits[0], [], knobs(temperature=0.0), 3, seed=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4], CONFIGS[11]], ids=name_of)
def test_process_shows_what_the_sampler_draws_from(engine, config, monkeypatch):
    seen = []

    def intercept(scores, temp):
        seen.append(scores * (1.0 / temp))
        return mx.argmax(scores, axis=-1)

    monkeypatch.setattr(engine._module, "categorical_sampling", intercept)
    logits = np.random.default_rng(2).normal(scale=2, size=50).astype(np.float32)
    engine.draw(logits, [3, 3, 5], config, 1, seed=0)
    np.testing.assert_array_equal(np.array(seen[0]), engine.process(logits[None], [[3, 3, 5]], config))


@pytest.mark.parametrize("width", [1, 32])
def test_draws_follow_the_scores(kind, width):
    engine = kind(width=width)
    logits = np.random.default_rng(3).normal(size=20).astype(np.float32)
    config = knobs(**ALL_ON)
    tokens = engine.draw(logits, [1, 1, 4], config, 6000, seed=5)
    expected = softmax(engine.process(logits[None], [[1, 1, 4]], config)[0].astype(np.float64))
    counts = np.bincount(tokens, minlength=20)
    assert tokens.dtype == np.int64
    assert counts[expected == 0].sum() == 0
    assert not Multinomial(expected, alpha=1e-9).judge(counts).rejected


def test_seeds_threads_and_numbers_of_draws(engine):
    logits = np.zeros(1000, dtype=np.float32)

    def draw(seed, n):
        return engine.draw(logits, [], knobs(), n, seed).tolist()

    assert draw(1, 100) == draw(1, 100)
    assert draw(1, 100)[:70] == draw(1, 70)
    assert draw(1, 100) != draw(2, 100)
    assert draw(1, 0) == []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(draw, 1, 100).result() == draw(1, 100)


def test_rows_are_alone_and_input_stays(engine):
    logits, history = np.random.default_rng(4).normal(size=(4, 30)).astype(np.float32), [[1, 2, 2], [], [29] * 50, [0]]
    before, rows = logits.copy(), [slice(row, row + 1) for row in range(4)]
    alone = [engine.process(logits[row], history[row], knobs(**ALL_ON)) for row in rows]
    np.testing.assert_array_equal(engine.process(logits, history, knobs(**ALL_ON)), np.concatenate(alone))
    np.testing.assert_array_equal(logits, before)


def test_a_vocabulary_of_151936(engine):
    logits = np.random.default_rng(5).normal(size=(1, 151_936)).astype(np.float32)
    scores = engine.process(logits, [[7] * 3], knobs(top_p=0.5, repetition_penalty=1.2))
    mass = softmax(logits[0].astype(np.float64))[scores[0] > -np.inf].sum()
    assert abs(mass - 0.5) < 0.01
    (token,) = engine.draw(logits[0], [], knobs(top_p=0.5), 1, seed=0)
    assert scores[0, token] > -np.inf


@pytest.mark.skipif(mx.default_device().type != mx.cpu, reason="docs/findings.md was recorded on a CPU")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_packages_own(kind, dtype):
    """docs/findings.md: mlx-audio's top-p sums in half precision and removes every token of a flat row."""
    engine = kind(dtype=dtype)
    kept = (engine.process(np.zeros((1, 151_936), dtype=np.float32), [[]], knobs(top_p=0.9)) > -np.inf).sum()
    assert engine.info.dtype == dtype
    assert kept == {"mlx-lm": 151_936, "mlx-audio": 0}[engine.info.dialect]


@pytest.mark.parametrize(
    ("config", "history", "expected"),
    [
        (knobs(top_p=0.0), [], "top_p = 0 is off in {}"),
        (knobs(top_k=5), [], "{} refuses top_k = 5 for 5 logits"),
        (knobs(top_p=0.5, min_tokens_to_keep=2), [], "min_tokens_to_keep = 2 is for min_p alone in {}"),
        (knobs(top_k=2, min_tokens_to_keep=3), [], "min_tokens_to_keep = 3 is for min_p alone in {}"),
        (knobs(min_p=0.5, min_tokens_to_keep=6), [], "{} refuses min_tokens_to_keep = 6 for 5 logits"),
        (knobs(min_p=0.5, top_p=0.5, order=("min_p", "top_p")), [], "{} does not offer the order min_p>top_p"),
        (knobs(repetition_penalty=2.0), [1, 5], "{} has no check for id 5 of 5 logits"),
    ],
)
def test_what_the_package_does_otherwise_is_unsupported(engine, config, history, expected):
    logits = np.zeros(5, dtype=np.float32)
    with pytest.raises(Unsupported, match=expected.format(engine.info.name)):
        engine.process(logits[None], [history], config)
    with pytest.raises(Unsupported, match=expected.format(engine.info.name)):
        engine.draw(logits, history, config, 1, seed=0)


def test_guidance_is_unsupported_where_it_would_matter(engine):
    logits = np.zeros((1, 5), dtype=np.float32)
    guided = SamplingConfig(order=("cfg", *ORDER))
    with pytest.raises(Unsupported, match=r"has no guidance: cfg_weight = 0.5"):
        engine.process(logits, [[]], guided, logits)
    assert engine.process(logits, [[]], guided).shape == (1, 5)
    with pytest.raises(Unsupported, match="has no guidance"):
        offered(engine.info, SamplingConfig())
    asked = offered(engine.info, SamplingConfig(cfg_weight=0.0, top_k=3))
    assert asked.order == ORDER
    assert engine.process(logits, [[]], asked).shape == (1, 5)


def test_stages_that_the_order_leaves_out_do_nothing_and_negative_ids_are_refused(engine):
    logits = np.log(np.float32([[0.5, 0.3, 0.2]]))
    config = knobs(top_p=0.1, top_k=1, temperature=0.0, repetition_penalty=9.0, order=("min_p",))
    np.testing.assert_allclose(engine.process(logits, [[0]], config), logits, atol=1e-6)
    with pytest.raises(LogitsError, match="the history contains -1"):
        engine.process(logits, [[-1]], knobs(repetition_penalty=2.0))


def test_they_have_names_and_say_who_they_are(engine):
    info = engine.info
    assert type(load_engine(info.name, known_engines(None, 8))) is type(engine)
    assert isinstance(engine, Processes)
    assert isinstance(engine, Draws)
    assert (info.dialect, info.orders, info.cfg, info.dtype) == (info.name, (ORDER,), False, "float32")
    assert info.version.startswith(f"{info.name} ")
    assert info.device == mx.default_device().type.name
    with pytest.raises(EngineError, match=f"known: {', '.join(ENGINES)}"):
        load_engine("mlxlm", known_engines(None, 8))


@pytest.mark.parametrize(("kind", "module"), [(MlxLmEngine, "mlx_lm"), (MlxAudioEngine, "mlx_audio")])
def test_a_missing_package_is_named_with_a_hint(kind, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=rf"{kind.source.distribution} is not installed \(pip install .*==0\."):
        kind()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "numpy cannot be used: .*No such file"),
        ("def make_sampler(): ...", "numpy cannot be used: module .* has no attribute 'make_logits_processors'"),
        ("import no_such_module", "numpy cannot be used: No module named 'no_such_module'"),
    ],
)
def test_a_package_that_does_not_fit_is_named(tmp_path, monkeypatch, text, expected):
    (tmp_path / "foreign_package").mkdir()
    (tmp_path / "foreign_package/__init__.py").touch()
    if text is not None:
        (tmp_path / "foreign_package/sampling.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match=expected):
        Source("numpy", "foreign_package", "sampling.py", "pip install it").load()
