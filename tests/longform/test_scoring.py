"""Files of tokens scored under the model that made them: `sampler check TOKENS.jsonl --against core`."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest

from sampler import finch
from sampler.config import SamplingConfig
from sampler.engines.core import CoreEngine
from sampler.requests import Request
from sampler.results.store.tokens import TokenLine, read_lines, run_of
from sampler.run.network_causes import NETWORKS, Input
from sampler.run.scoring import Model, Scoring
from sampler.run.spoken import missing, spoken
from sampler.run.tokens import findings
from sampler.variants import variant
from tests.commands import assert_one_clear_line, sampler

ASKED = SamplingConfig()
FIRST_HALF = "the first half of the text"
TEXTS = finch.prompts("sentences")[:3]


@cache
def core():
    return CoreEngine.load(width=6).recording(logits=False, attention=False)


@cache
def lines(runs=1, name="", **made):
    """Runs of Finch with other parameters than those that a line without config stands for."""
    rules = variant(name) if name else None
    engine = core().following(name) if name else core()
    config = replace(rules.config if rules else ASKED, **made)
    texts = [text for text in TEXTS for _ in range(runs)]
    requests = [Request(text.text, config, seed, 250, language=text.language) for seed, text in enumerate(texts)]
    answers = zip(texts, engine.generate(requests), strict=True)
    return [
        {"prompt": text.id, "tokens": list(one.tokens), "stop_reason": one.stop_reason, "seed": seed}
        for seed, (text, one) in enumerate(answers)
    ]


def checked(path, given, *options):
    """Exit code, verdicts by check, and the report."""
    file, report = path / "port.jsonl", path / "report.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in given), encoding="utf-8")
    result = sampler("check", file, "--against", "core", "--json", report, *options)
    if not report.exists():
        return result.returncode, {}, result
    data = json.loads(report.read_text(encoding="utf-8"))
    return result.returncode, {verdict["check"]: verdict for verdict in data["verdicts"]}, data


def test_tokens_of_the_model_are_possible_and_too_few_to_agree(tmp_path):
    code, verdicts, report = checked(tmp_path, lines()[:1])
    assert [verdicts[name]["outcome"] for name in ("impossible", "evidence", "protocol")] == [
        "passed",
        "inconclusive",
        "passed",
    ]
    assert (code, report["outcome"]) == (3, "inconclusive")
    words = r"excluded: .*no voice prompt.*; not excluded: .* \(takes about [\d,]+ tokens\)"
    assert re.search(words, verdicts["evidence"]["message"])


@pytest.mark.parametrize(
    ("made", "stage", "words"),
    [
        ({"min_p": 0.0}, "min_p", "it looks like no min_p"),
        ({"repetition_penalty": 1.0}, "repetition_penalty", "it looks like no repetition_penalty"),
        ({"temperature": 1.1}, "temperature", "it looks like a temperature near 1."),
        ({"min_new_tokens": 99}, "stop", "it looks like EOS suppressed at first, for at most "),
        ({"penalty_window": 9}, "repetition_penalty", "it looks like a penalty that looks back on at most "),
        ({"cfg_weight": -0.5, "cfg_convention": "unconditional"}, "cfg", "unconditional logits exchanged"),
    ],
    ids=["min_p dropped", "penalty off", "temperature", "EOS held back", "short memory", "rows exchanged"],
)
def test_another_chain_is_proved_and_named(tmp_path, made, stage, words):
    code, verdicts, report = checked(tmp_path, lines(2, **made))
    assert (code, verdicts["impossible"]["outcome"], report["diagnosis"][0]["stage"]) == (1, "failed", stage)
    assert words in report["diagnosis"][0]["explanation"]


@pytest.mark.parametrize(
    "named", [pytest.param(named, id=named.text) for named in NETWORKS if named.text in ("no voice prompt", FIRST_HALF)]
)
def test_another_input_of_the_network_is_named(tmp_path, named):
    """Tokens that the core spoke with another input, as a port with that fault would."""
    given = [NETWORKS[named](Input(core(), tuple(core().ids(text.text, text.language)), None)) for text in TEXTS]
    engine = CoreEngine(replace(given[0].engine.generator, bos_count=given[0].bos_count))
    requests = [Request(tuple(one.text), ASKED, seed, 250) for seed, one in enumerate(given)]
    port = [
        {"prompt": text.id, "tokens": list(one.tokens), "stop_reason": one.stop_reason}
        for text, one in zip(TEXTS, engine.generate(requests), strict=True)
    ]
    code, _, report = checked(tmp_path, port)
    assert (code, report["diagnosis"][0]["stage"]) == (1, "position")
    assert f"it looks like {named.text}" in report["diagnosis"][0]["explanation"]


def test_what_a_line_says_of_its_config_is_what_it_is_scored_under(tmp_path):
    given = [line | {"config": {"min_p": 0.0}} for line in lines(min_p=0.0)]
    assert checked(tmp_path, given)[1]["impossible"]["outcome"] == "passed"


def test_an_analyzer_forces_ends_and_is_computed_again(tmp_path):
    given = lines(2, "mtl-0.1.6", repetition_penalty=1.1)
    told = [line | {"variant": "mtl-0.1.6", "config": {"repetition_penalty": 1.1}} for line in given]
    _, verdicts, _ = checked(tmp_path, told)
    assert verdicts["impossible"]["outcome"] == "passed", verdicts["impossible"]["message"]
    assert any(line["stop_reason"] == "forced_eos" for line in given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tokens: [*tokens, 17], "goes on after EOS"),
        (lambda tokens: tokens[:-1], "says eos, but its last token is"),
        (lambda tokens: [*tokens[:5], 999_999, *tokens[5:]], "has token 999999; the model has 2,050 ids"),
    ],
    ids=["beyond EOS", "EOS stripped", "no id"],
)
def test_ends_that_contradict_the_contract_are_failures(tmp_path, change, says):
    first, *others = lines()
    code, verdicts, _ = checked(tmp_path, [first | {"tokens": change(first["tokens"])}, *others])
    assert (code, verdicts["protocol"]["outcome"]) == (1, "failed")
    assert says in verdicts["protocol"]["message"]


@pytest.mark.nightly("scores the 4,100 tokens that the model has positions for")
def test_a_run_of_more_tokens_than_the_model_has_positions_is_a_failure_in_one_sentence():
    model = Model(core(), networks=False)
    score = model.score(ASKED, 1e-6)
    score.add(model.run("run 1", Request(TEXTS[0].text, ASKED, 0, 5000), (7,) * 5000, "length"))
    assert score.wrong == ["run 1 has 5,000 tokens; the model has positions for 4,100, which are scored"]
    assert score.checked == 4100


def test_tokens_without_any_eos_are_scored_given_that(tmp_path):
    given = [line | {"tokens": line["tokens"][:-1]} for line in lines()]
    _, verdicts, _ = checked(tmp_path, given)
    assert [verdicts[name]["outcome"] for name in ("impossible", "protocol")] == ["passed", "passed"]
    assert "EOS is missing from all runs" in verdicts["protocol"]["message"]


def left_out(line, *, of):
    """A line whose log has null in place of the last of so many tokens, and of its EOS."""
    tokens = [None if place % of == of - 1 else token for place, token in enumerate(line["tokens"])]
    return line | {"tokens": [*tokens[:-1], None]}


def answers(path, given, model):
    """The answers of scoring, and of the questions about whole runs, by check."""
    file = path / "port.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in given), encoding="utf-8")
    lines = read_lines(file, gaps=True)
    scored = lambda alpha: Scoring(model, spoken(lines), alpha).findings()  # noqa: E731
    found = findings([run_of(line) for line in lines], (), scored=scored)
    return {name.rsplit("/", 1)[1]: finding for name, finding in found}


def test_a_run_with_gaps_is_possible_or_not_up_to_the_first_and_nothing_is_bet_on(tmp_path):
    model, given = Model(core(), networks=False), [left_out(line, of=20) for line in lines()]
    found = answers(tmp_path, given, model)
    assert (found["impossible"].outcome, found["impossible"].n) == ("passed", 3 * 19)
    assert (found["evidence"].outcome, found["evidence"].reason) == ("skipped", "not_recorded")
    assert found["protocol"].outcome == "passed"
    assert "leaves tokens out of 3, each of which is scored up to the first" in found["protocol"].message
    assert (found["ends"].outcome, found["looping"].outcome) == ("skipped", "inconclusive")
    assert "0 of 3 runs loop" in found["looping"].message
    given[1]["tokens"][7] = given[1]["tokens"][7] ^ 1
    assert answers(tmp_path, given, model)["impossible"].outcome == "failed"


@pytest.mark.parametrize(("shift", "checked"), [(0, "skipped"), (1, "failed")])
def test_tokens_of_another_vocabulary_are_named_in_a_line(tmp_path, shift, checked):
    given = [line | {"tokens": [*[7] * shift, *(token + 32_000 for token in line["tokens"])]} for line in lines()]
    found = answers(tmp_path, given, Model(core(), networks=False))
    assert (found["impossible"].outcome, found["protocol"].outcome) == (checked, "failed")
    words = "it looks like tokens of another vocabulary: ids up to 34,049, where the model has 2,050"
    assert all(words in finding.message for finding in found.values() if finding.outcome == "failed")


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([{"seed": seed} for seed in (3, 4, 6, 7)], "1 of the seeds of prompt a are missing, first 5"),
        ([{"request": place} for place in (1, 2, 5)], "2 of the requests are missing, first 3"),
        ([{"cell": "x/y", "request": place} for place in (1, 0)], ""),
        ([{"seed": seed} for seed in (3, 400, 2**40)], ""),
        ([{}] * 3, ""),
    ],
)
def test_runs_that_a_log_has_lost_are_noted(numbers, says):
    given = [TokenLine(prompt="a", tokens=(1,), stop_reason="length", **number) for number in numbers]
    assert missing(given).removeprefix("; note: ").split(";")[0] == says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": [1, -1]}, "tokens[1] = -1 (expected a list of whole numbers from 0, null where"),
        ({"prompt": "unknown"}, "the text of prompt 'unknown' is unknown"),
        ({"config": {"temprature": 1.0}}, "did you mean 'temperature'?"),
        ({"config": {"temperature": -1.0}}, "temperature = -1.0"),
        ({"text": "a", "text_ids": [1]}, "expected one of them"),
        ({"text_ids": [10**6]}, "text id 1000000 is no token"),
        ({"variant": "mtl"}, "there is no variant 'mtl'"),
    ],
    ids=["token", "text", "field", "range", "both", "text id", "variant"],
)
def test_what_cannot_be_scored_is_refused_in_a_line(tmp_path, change, says):
    assert_one_clear_line(checked(tmp_path, [lines()[0] | change])[2], says)


def test_a_variant_that_the_model_cannot_follow_is_refused_and_not_passed_over(tmp_path):
    file = tmp_path / "port.jsonl"
    file.write_text(json.dumps(lines()[0] | {"variant": "mtl-0.1.6"}) + "\n", encoding="utf-8")
    result = sampler("check", file, "--against", "tests/miniatures.py:right_speaker")
    assert_one_clear_line(result, "cannot follow the variant mtl-0.1.6")
