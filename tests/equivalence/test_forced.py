"""Teacher forcing of several runs in one pass gives what each run gives by itself, and computes shared rows once."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from sampler import finch
from sampler.config import SamplingConfig
from sampler.engines.core import CoreEngine, Drawn
from sampler.requests import Request
from sampler.run.ahead import Ahead
from sampler.t3 import prefix_attention
from sampler.t3.backbone import AttentionRequest, Backbone
from sampler.t3.branches import Prefixes
from sampler.t3.cache import KeyValueCache
from sampler.t3.llama import Layer
from sampler.t3.model import T3, Speech
from tests.support import TINY, TURBO_TINY, random_voice, random_weights

TEXTS = ((3, 5, 7, 9, 11, 0), (3, 6, 7, 9, 11, 0), (3, 5, 7, 0), (3, 5, 7, 9, 11, 0), (3, *range(4, 37), 0))
"""Some begin alike, some go on alike after another beginning, and two are one."""

COUNTS = (9, 0, 1, 40, 33)
KINDS = pytest.mark.parametrize(("name", "guided"), [("tiny", True), ("tiny", False), ("turbo-tiny", False)])
VOICE_ROWS, BOS = TINY.perceiver_queries + 2, 2


@cache
def model(name, dtype=mx.float32):
    config = {"tiny": TINY, "turbo-tiny": TURBO_TINY}[name]
    return T3({key: values.astype(dtype) for key, values in random_weights(config, 5).items()}, config)


def runs_of(model, *, guided):
    rng, voice = np.random.default_rng(7), random_voice(model.config, 6)
    return [
        Speech(model.prefix(text, voice, guided=guided), rng.integers(0, 64, count).tolist())
        for text, count in zip(TEXTS, COUNTS, strict=True)
    ]


def by_itself(model, prefix, tokens, heads=()):
    """One run through a cache of its own, as a generation fills it."""
    if tokens:
        speech = mx.repeat(model.embed_speech(tokens, range(1, len(tokens) + 1))[None], len(prefix), axis=0)
        prefix = mx.concatenate([prefix, speech], axis=1)
    cache, count = KeyValueCache(model.config, len(prefix)), len(tokens) + 1
    hidden, attention = model.backbone.prefill(prefix, cache, AttentionRequest(heads, count), last=count)
    return model.logits(hidden), attention


def assert_as_by_themselves(model, runs, tolerance):
    heads = model.config.aligned_heads
    for run, (logits, attention) in zip(runs, model.forced_together(runs, heads), strict=True):
        expected, rows = by_itself(model, run.prefix, run.tokens, heads)
        assert logits.shape == (len(run.prefix), len(run.tokens) + 1, model.config.speech_vocab_size)
        np.testing.assert_allclose(np.array(logits), np.array(expected), atol=tolerance)
        assert len(attention) == len(heads)
        for found, right in zip(attention, rows, strict=True):
            np.testing.assert_allclose(np.array(found), np.array(right), atol=tolerance)


@KINDS
@pytest.mark.parametrize("loops", [True, False], ids=["compiled", "MLX's own"])
def test_runs_together_are_as_by_themselves(monkeypatch, name, guided, loops):
    if not loops:
        monkeypatch.setattr(prefix_attention, "compiled", lambda rows: False)
    assert_as_by_themselves(model(name), runs_of(model(name), guided=guided), 1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_runs_together_in_half_precision(dtype):
    small = model("tiny", dtype)
    assert_as_by_themselves(small, runs_of(small, guided=True), {mx.float16: 1e-2, mx.bfloat16: 8e-2}[dtype])


def test_threads_share_the_work(monkeypatch):
    """However they cut it; one run alone is cut between its heads."""
    runs = runs_of(model("tiny"), guided=True)
    expected = [np.array(logits) for logits, _ in model("tiny").forced_together(runs)]
    for threads in (2, 3, 5):
        monkeypatch.setattr(prefix_attention.blas, "threads", lambda threads=threads: threads)
        for (logits, _), right in zip(model("tiny").forced_together(runs), expected, strict=True):
            np.testing.assert_array_equal(np.array(logits), right)


def test_shared_rows_are_computed_once_and_the_last_layer_for_logits_alone(monkeypatch):
    rows, branches, rest = [], Backbone.branches, Layer.rest

    def counting(backbone, of_runs, *given):
        rows.append(len(of_runs.rows))
        return branches(backbone, of_runs, *given)

    def resting(layer, hidden, mixed):
        rows.append(len(hidden))
        return rest(layer, hidden, mixed)

    monkeypatch.setattr(Backbone, "branches", counting)
    monkeypatch.setattr(Layer, "rest", resting)
    model("tiny").forced_together(runs_of(model("tiny"), guided=True))
    before_last_bos = BOS - 1
    conditional = len(TEXTS[0]) + (len(TEXTS[1]) - 1) + 1 + (len(TEXTS[4]) - 1) + 4 * before_last_bos
    blank = len(TEXTS[4]) + 3 * before_last_bos  # BOS comes after 4, 6 and 35 blank positions
    asked = 2 * sum(count + 1 for count in COUNTS)
    whole = VOICE_ROWS + conditional + blank + asked
    assert rows == [whole, whole, asked]


@KINDS
def test_prefixes_are_kept_from_pass_to_pass(name, guided, monkeypatch):
    """A pass computes the rows of its tokens alone where it knows the texts, and gives what it gave without."""
    runs, rows = runs_of(model(name), guided=guided), []
    heads, kept = model(name).config.aligned_heads, Prefixes()
    first, again = (model(name).forced_together(runs, heads, kept) for _ in range(2))
    apart = [model(name).forced_together([run], heads, kept)[0] for run in runs]
    for found in (first, again, apart):
        for (logits, attention), (right, theirs) in zip(found, model(name).forced_together(runs, heads), strict=True):
            np.testing.assert_allclose(np.array(logits), np.array(right), atol=2e-5)
            for one, other in zip(attention, theirs, strict=True):
                np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-5)
    branches = Backbone.branches
    monkeypatch.setattr(
        Backbone, "branches", lambda own, given, *more: rows.append(len(given.rows)) or branches(own, given, *more)
    )
    model(name).forced_together(runs, prefixes=kept)
    assert rows == [sum(len(run.prefix) * (len(run.tokens) + 1) for run in runs)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_prefixes_take_no_more_room_than_they_may(share, together):
    """However many come in one pass."""
    runs, every = runs_of(model("tiny"), guided=False), Prefixes()
    model("tiny").forced_together(runs, prefixes=every)
    most = int(share * sum(map(size_of, every.known.values())))
    assert min(map(size_of, every.known.values())) < most
    few, passes = Prefixes(most), [runs] if together else [[run] for run in runs]
    for some in [*passes, runs]:
        found = model("tiny").forced_together(some, prefixes=few)
    assert 0 < sum(map(size_of, few.known.values())) <= most
    for (logits, _), (right, _) in zip(found, model("tiny").forced_together(runs), strict=True):
        np.testing.assert_allclose(np.array(logits), np.array(right), atol=2e-5)


def size_of(kept):
    return sum(array.nbytes for array in kept)


@cache
def spoken():
    """Runs of Finch, two of each text."""
    engine = CoreEngine.load(width=8).recording(logits=False, attention=False)
    texts = [text for text in finch.prompts("sentences")[:4] for _ in range(2)]
    config = SamplingConfig()
    requests = [Request(text.text, config, seed, 250, language=text.language) for seed, text in enumerate(texts)]
    return [(one, answer.tokens) for one, answer in zip(requests, engine.generate(requests), strict=True)]


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_finch_scores_runs_together_as_one_by_one(guided):
    """To rounding: how OpenBLAS adds up depends on the number of rows, by up to 5e-5 in a few logits of millions."""
    engine = CoreEngine.load(width=1)
    drawn = [Drawn(request.prompt, tokens, request.language) for request, tokens in spoken()]
    for run, (found, flags) in zip(drawn, engine.predict_together(drawn, guided=guided), strict=True):
        alone = engine.predict(*run, guided=guided)
        assert found.shape == alone.shape == (*([2] if guided else []), len(run.tokens) + 1, 2050)
        assert np.abs(found - alone).max() < 1e-4
        assert np.sqrt(np.square(found - alone).mean()) < 5e-6
        assert flags == ()


def test_an_analyzer_decides_in_runs_together_as_in_each():
    engine = CoreEngine.load(width=1).following("mtl-0.1.6")
    # What comes after the end of a text has to be flagged, so the runs are of other texts than their own.
    drawn = [Drawn(request.prompt, 2 * spoken()[-1 - at][1], "en") for at, (request, _) in enumerate(spoken())]
    together = engine.predict_together(drawn, analyzed=True)
    assert [flags for _, flags in together] == [engine.decided(*run)[1] for run in drawn]
    assert len({flag for _, flags in together for flag in flags}) > 1


# ---------------------------------------------------------------- which runs are computed together


class Counted(CoreEngine):
    """The core, which notes how many runs it is asked for."""

    asked: list[int]

    def predict_together(self, runs, **how):
        self.asked.append(len(runs))
        return super().predict_together(runs, **how)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counted, "asked", [], raising=False)
    return Counted(CoreEngine.load(width=1).generator)


def test_the_first_run_is_computed_alone_and_then_ever_more(counted):
    runs = [*spoken(), (spoken()[0][0], ())]
    ahead = Ahead(counted, runs, guided=True)
    ahead.of(0)
    assert counted.asked == [1]
    for place, (request, tokens) in enumerate(spoken()):
        logits, flags = ahead.of(place)
        expected = counted.predict(request.prompt, tokens[:-1], request.language).transpose(1, 0, 2)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert flags == ()
    assert [count for count in counted.asked if count > 1] == [2, 4]
    assert sum(counted.asked) == 2 * len(spoken())


def test_no_more_runs_than_fit_and_the_oldest_are_forgotten(counted, monkeypatch):
    size = [8 * 2050 * len(tokens) for _, tokens in spoken()]
    monkeypatch.setattr("sampler.run.ahead.MOST_AT_ONCE", size[1] + size[2])
    monkeypatch.setattr("sampler.run.ahead.MOST_KEPT", sum(size[:3]))
    ahead = Ahead(counted, spoken(), guided=True, _count=8)
    first = ahead.of(1)[0].copy()
    assert counted.asked == [2]
    ahead.of(0)
    assert counted.asked == [2, 1]
    for place in (0, 1, 2):
        ahead.of(place)
    assert counted.asked == [2, 1]
    ahead.of(3)
    np.testing.assert_allclose(ahead.of(1)[0], first, atol=1e-4)
    assert len(counted.asked) == 4


def test_an_engine_that_predicts_one_run_is_asked_for_each():
    class Other:
        info = CoreEngine.load(width=1).info

        def predict(self, prompt, tokens):
            return np.zeros((2, len(tokens) + 1, 2050), np.float32)

    ahead = Ahead(Other(), spoken(), guided=False)
    assert ahead.of(2)[0].shape == (len(spoken()[2][1]), 1, 2050)
    assert list(ahead._known) == [2]
