"""Causes of runs that are no draws of the reference: each is named from tokens that were drawn in its way."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from sampler.checks.scoring.causes import explained
from sampler.checks.scoring.score import Run, Score
from sampler.config import SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Context, Steps

SIZE, TOKENS, RUNS, EOS, BOS = 120, 60, 10, 119, 300
NIGHTLY = pytest.mark.nightly("fits every cause to 600 tokens; some of each kind by day")
ASKED = SamplingConfig(min_p=0.02)
TEXT = "the ids of the text"
PROMPT = tuple(range(0, SIZE - 1, 3))


def logits_of(run):
    """Conditional and unconditional logits, (2, TOKENS, SIZE) each; some tokens are likely all the time."""
    rng = np.random.default_rng(run)
    likely = np.random.default_rng(99).normal(0, 2.5, SIZE) * (np.arange(SIZE) != EOS)
    return (likely + rng.normal(0, 1.5, (2, TOKENS, SIZE))).astype(np.float32) - 9 * (np.arange(SIZE) == EOS)


def steps_of(logits, tokens, config, rows):
    history = [[BOS, *tokens[:row]] for row in rows]
    at = np.array(rows)
    context = Context(np.ones(len(at), dtype=np.int64), at, (EOS,))
    drawn = np.array([tokens[row] for row in rows]) if len(tokens) == TOKENS else np.zeros(len(at), np.int64)
    return Steps(logits[0, at], history, (config,) * len(at), logits[1, at], context, tokens=drawn)


def drawn(way, run, asked):
    """A run whose every token comes from the chain of `way`, which makes other steps of the right ones."""
    rng, logits, tokens = np.random.default_rng((run, 1)), logits_of(run), []
    for row in range(TOKENS):
        steps = replace(steps_of(logits, tokens, asked, [row]), request=run)
        scores = ReferenceEngine().evaluate(way(steps))[-1].scores[0]
        tokens.append(int(rng.choice(SIZE, p=softmax(scores))))

    def scorer(config):
        for first in range(0, TOKENS, 25):
            yield steps_of(logits, tokens, config, range(first, min(first + 25, TOKENS)))

    return Run(f"run {run + 1}", tokens, "length", scorer, prompts=lambda: {TEXT: PROMPT})


def cause(way, asked=ASKED):
    score = Score(asked, 1e-6, ReferenceEngine(input_error=2e-3), ReferenceEngine(input_error=5e-5), SIZE, (EOS,))
    for run in range(RUNS):
        score.add(drawn(way, run, asked))
    assert score.decided
    return explained(score).cause


def of_config(**made):
    return lambda steps: steps.with_config(replace(ASKED, **made))


def in_part(border, early, **made):
    def way(steps):
        return of_config(**made)(steps) if (steps.context.step[0] < border) == early else steps

    return way


def late(steps):
    return replace(steps, history=[ids[:1] if len(ids) < 2 else ids[:-1] for ids in steps.history])


def every_time(steps):
    """The penalty once for each time that a token came, on guided logits."""
    cond, uncond = steps.logits.astype(np.float64), steps.uncond_logits
    guided = cond + ASKED.cfg_weight * (cond - uncond)
    for token in steps.history[0][1:]:
        guided[0, token] *= ASKED.repetition_penalty if guided[0, token] < 0 else 1 / ASKED.repetition_penalty
    config = replace(ASKED, repetition_penalty=1.0, cfg_weight=0.0)
    return replace(steps, logits=guided.astype(np.float32)).with_config(config)


def penalised_first(steps):
    """The conditional logits, before guidance."""
    logits = steps.logits.copy()
    for token in set(steps.history[0][1:]):
        logits[0, token] *= ASKED.repetition_penalty if logits[0, token] < 0 else 1 / ASKED.repetition_penalty
    return replace(steps, logits=logits).with_config(replace(ASKED, repetition_penalty=1.0))


def mixing_probabilities(steps):
    cond, uncond = (softmax(rows.astype(np.float64)) for rows in (steps.logits, steps.uncond_logits))
    mixed = np.log(np.maximum(cond + ASKED.cfg_weight * (cond - uncond), 1e-12))
    scores = mixed + np.log(np.exp(steps.logits.astype(np.float64)).sum())
    return replace(steps, logits=scores.astype(np.float32)).with_config(replace(ASKED, cfg_weight=0.0))


def drawn_as_it_is(steps):
    return steps.with_config(replace(ASKED, cfg_weight=0.0, repetition_penalty=1.0, temperature=1.0, min_p=0.0))


def reviving(steps):
    p = softmax(ReferenceEngine().evaluate(steps)[-1].scores)
    return drawn_as_it_is(replace(steps, logits=np.log(p + 2e-4).astype(np.float32)))


def tempered(which):
    def way(steps):
        rows = {which: getattr(steps, which) / np.float32(ASKED.temperature)}
        return replace(steps, **rows).with_config(replace(ASKED, temperature=1.0))

    return way


def unconditional_of(step):
    """The unconditional logits of another step."""

    def way(steps):
        at = step(int(steps.context.step[0]))
        return replace(steps, uncond_logits=logits_of(steps.request)[1, [at]])

    return way


def bounded(steps):
    """min_p as a bound of the probability itself, or the likeliest token."""
    asked = steps.configs[0]
    scores = ReferenceEngine().evaluate(steps.with_config(replace(asked, min_p=0.0)))[-1].scores
    p = softmax(scores)
    kept = np.where(p >= min(asked.min_p, p.max()), scores, -np.inf)
    return drawn_as_it_is(replace(steps, logits=kept.astype(np.float32)))


def of_history(change):
    """With a part of the drawn tokens as history, behind BOS."""
    return lambda steps: replace(steps, history=[[BOS, *change(steps.history[0][1:])]])


def filtered_by(keeps, draws):
    """What one chain keeps is drawn by the scores of another one, which has no filter."""

    def way(steps):
        kept, scores = (
            ReferenceEngine().evaluate(steps.with_config(replace(ASKED, **config)))[-1].scores
            for config in (keeps, {"min_p": 0.0, **draws})
        )
        return drawn_as_it_is(replace(steps, logits=np.where(kept > -np.inf, scores, -np.inf).astype(np.float32)))

    return way


def leaving_top_choices_out(steps):
    """In half of the steps, only the least likely of the tokens with a probability of 0.1 and more stays of these."""
    p = softmax(ReferenceEngine().evaluate(steps)[-1].scores)
    choices = [token for token in np.argsort(-p[0]) if p[0, token] >= 0.1]
    left = p.copy()
    left[0, choices[:-1]] = 0
    with np.errstate(divide="ignore"):
        return drawn_as_it_is(replace(steps, logits=np.log(0.5 * p + 0.5 * left / left.sum()).astype(np.float32)))


BY_DAY = [
    (of_history(lambda ids: ids[: len(ids) // 20 * 20]), "repetition_penalty", ".* learns tokens in chunks of 20"),
    (filtered_by({"cfg_weight": 0.0}, {}), "cfg", "filters before guidance"),
    (late, "repetition_penalty", "a penalty that learns each token one step late"),
    (every_time, "repetition_penalty", "a penalty of every occurrence of a token"),
    (tempered("logits"), "temperature", "a temperature of the conditional logits alone"),
    (in_part(20, False, temperature=1.0), "temperature", r"(no temperature|.* of 1) from step (1[6-9]|2[0-4]) on"),
    (of_config(top_p=0.8), "top_p", "a top_p of 0.8, where none was asked for"),
    (unconditional_of(lambda step: 0), "cfg", "the unconditional logits of the first step at every step"),
    (reviving, "draw", "tokens that the filters removed, each as likely as any other"),
]
BY_NIGHT = [
    (of_history(lambda ids: ids[len(ids) // 32 * 32 :]), "repetition_penalty", ".* forgets all .* each multiple of 32"),
    (of_history(lambda ids: ids[:16]), "repetition_penalty", ".* sees the first 16 tokens alone"),
    (of_history(lambda ids: ids[-7:]), "repetition_penalty", r".* looks back on at most ([789]|1\d) tokens"),
    (filtered_by({}, {"cfg_weight": 0.0}), "cfg", "guidance in the filters alone"),
    (filtered_by({"repetition_penalty": 1.0}, {}), "repetition_penalty", "filters before the penalty"),
    (leaving_top_choices_out, "xtc_probability", "XTC of 0.5 from 0.1 on, where none was asked for"),
    (of_config(typical_p=0.5), "typical_p", "a typical_p of 0.5, where none was asked for"),
    (
        lambda steps: replace(steps, history=[[*PROMPT, *ids] for ids in steps.history]),
        "repetition_penalty",
        "a penalty that sees the ids of the text",
    ),
    (penalised_first, "repetition_penalty", "a penalty of the conditional logits before guidance"),
    (mixing_probabilities, "cfg", "guidance of probabilities in place of logits"),
    (unconditional_of(lambda step: max(step - 1, 0)), "cfg", "the unconditional logits of the step before"),
    (tempered("uncond_logits"), "temperature", "a temperature of the unconditional logits alone"),
    (in_part(30, True, temperature=1.0), "temperature", r"(no temperature|.* of 1) before step (2[6-9]|3[0-4])"),
    (in_part(30, False, repetition_penalty=1.0), "repetition_penalty", r"no repetition_penalty from step (29|3\d) on"),
    (in_part(15, False, cfg_weight=0.0), "cfg", r"no cfg from step 1\d on"),
    (of_config(top_k=5), "top_k", "a top_k of 5, where none was asked for"),
    (of_config(min_p=0.0), "min_p", "no min_p"),
    (of_config(temperature=1.3), "temperature", r"a temperature near 1\.[23]\d*"),
]


def test_a_bound_of_the_whole_probability_is_named():
    named = cause(bounded, replace(ASKED, min_p=0.2))
    assert (named.stage, named.text) == ("min_p", "a min_p of the whole probability: 0.2, not 0.2 of the best")


@pytest.mark.parametrize(("way", "stage", "words"), [*BY_DAY, *(pytest.param(*row, marks=NIGHTLY) for row in BY_NIGHT)])
def test_what_made_the_tokens_is_named(way, stage, words):
    found = cause(way)
    assert found is not None
    assert found.stage == stage
    assert re.fullmatch(words, found.text)


def test_tokens_of_another_network_have_no_cause():
    """Those of the logits of other steps: no other chain explains them."""

    def way(steps):
        other = logits_of(1000 + int(steps.context.step[0]))
        return replace(steps, logits=0.7 * steps.logits + 0.7 * other[0, :1], uncond_logits=steps.uncond_logits)

    assert cause(way) is None
