"""Logs as people have them: each is converted to the same two runs, or told in a line what it is and what to do."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sampler.cli.app import app
from sampler.errors import TokensError
from sampler.results.store.logs import names
from sampler.results.store.logs.reading import read_log
from sampler.results.store.tokens import read_lines
from tests.commands import sampler
from tests.interface import log_files, wild_logs
from tests.interface.log_files import NO_NAME, PLAIN, STOP
from tests.interface.server_answers import RUNS, SETTINGS, lines, llama, runs, stream, vllm

READ = log_files.READ | wild_logs.READ | wild_logs.PLAIN_READ
REFUSED = log_files.REFUSED | wild_logs.REFUSED
PLAIN_KINDS = (*log_files.PLAIN_KINDS, *wild_logs.PLAIN_READ)

LONGEST = 200
"""Characters of a line that refuses a log."""


def file_of(path, content, name="port.jsonl"):
    file = path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def convert(file, *options, **given):
    arguments = ["tokens", "convert", str(file), "-o", "converted.jsonl", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False, **given)


def converted():
    return [(str(line.prompt), line.tokens, line.stop_reason) for line in read_lines(Path("converted.jsonl"))]


def test_there_are_files_of_many_kinds():
    assert len(READ) + len(REFUSED) >= 160


@pytest.mark.parametrize("kind", READ)
def test_a_log_is_converted(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = file_of(tmp_path, READ[kind])
    result = convert(file)
    assert result.exit_code == 0, result.stderr
    assert converted() == RUNS
    is_plain = kind in PLAIN_KINDS
    assert bool(read_log(str(file)).notes) != is_plain, "what was translated is said"
    assert read_log("converted.jsonl").notes == ""


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_log_is_told_what_it_is_and_what_to_do(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content, says = REFUSED[kind]
    file = file_of(tmp_path, content, "a-port-with-a-long-name.jsonl")
    for result in (convert(file), CliRunner().invoke(app, ["check", str(file)], catch_exceptions=False)):
        line = result.stderr.strip()
        assert result.exit_code == 2, result.output
        assert "\n" not in line
        assert says in line
        assert len(line) <= LONGEST
        assert "a-port-with-a-long-name.jsonl" in line
    assert not Path("converted.jsonl").exists()


@pytest.mark.parametrize("name", ["port.ndjson", "port.json", "port.jsonl.gz", "port.log", "port.txt", "port"])
def test_check_takes_a_log_of_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content = gzip.compress(lines(STOP).encode()) if name.endswith("gz") else lines(STOP)
    result = sampler("check", file_of(tmp_path, content, name))
    assert result.returncode == 3, result.stderr
    assert "2 runs of 2 texts, 7 tokens" in result.stdout
    assert "not quite TOKENS.jsonl: read 'stop' as eos, 'max_tokens' as length" in result.stdout


def test_a_log_comes_from_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert("-", input=gzip.compress(PLAIN.encode())).exit_code == 0
    assert converted() == RUNS
    result = CliRunner().invoke(app, ["check", "-"], input=b"{}", catch_exceptions=False)
    assert (result.exit_code, result.stderr.strip()) == (
        2,
        "error: standard input, line 1: key 'prompt' is missing (docs/tokens.md has an example)",
    )


def test_answers_that_name_no_prompt_are_texts_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = convert(file_of(tmp_path, stream()))
    assert result.exit_code == 0, result.stderr
    assert converted() == NO_NAME
    assert "none names its prompt: add `prompt`" in result.stdout
    ids = [{"prompt_token_ids": [5, 6]} | vllm("a", one, "stop")["response"] for one in ([1, 2], [3, 2])]
    assert convert(file_of(tmp_path, lines(ids))).exit_code == 0
    assert len({prompt for prompt, _, _ in converted()}) == 1, "equal ids are one prompt"


def test_what_was_asked_for_becomes_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"temperature": 0.7, "top_k": -1, "repetition_penalty": 1.1, "seed": 4, "n": 1, "stream": False}
    assert convert(file_of(tmp_path, lines([vllm("harbour", [1, 2], "stop", **asked)]))).exit_code == 0
    (line,) = read_lines(Path("converted.jsonl"))
    assert (line.seed, line.config) == (4, {"temperature": 0.7, "top_k": 0, "repetition_penalty": 1.1})
    beside = [one | {"temp": 0.6, "sampling_params": {"top_p": 0.9, "max_tokens": 4}} for one in runs()]
    assert convert(file_of(tmp_path, lines(beside))).exit_code == 0
    assert [line.config for line in read_lines(Path("converted.jsonl"))] == [{"temperature": 0.6, "top_p": 0.9}] * 2
    around = {"config": {"min_p": 0.1}, "language": "de", "runs": runs()}
    assert convert(file_of(tmp_path, json.dumps(around))).exit_code == 0
    assert {(line.config["min_p"], line.language) for line in read_lines(Path("converted.jsonl"))} == {(0.1, "de")}


def test_numbers_that_are_written_as_texts_are_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"seed": 3.0, "config": {"temperature": "0.7", "top_k": "40", "top_p": None}}
    assert convert(file_of(tmp_path, lines([runs()[0] | asked]))).exit_code == 0
    (line,) = read_lines(Path("converted.jsonl"))
    assert (line.seed, line.config) == (3, {"temperature": 0.7, "top_k": 40})
    assert convert(file_of(tmp_path, lines(runs(config={"temperature": None})))).exit_code == 0
    assert {line.config for line in read_lines(Path("converted.jsonl"))} == {None}


def test_settings_of_llama_cpp_become_the_config_and_its_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": one, "token": "x", "bytes": [120], "prob": 0.5, "top_probs": []} for one in (1, 2)]
    answer = llama("harbour", (), "eos", generation_settings=SETTINGS, completion_probabilities=rows)
    assert convert(file_of(tmp_path, json.dumps(answer))).exit_code == 0
    (line,) = read_lines(Path("converted.jsonl"))
    assert line.tokens == (1, 2)
    assert line.logprobs == pytest.approx([-0.6931, -0.6931], abs=1e-4), "of the distribution behind the filters"
    assert line.sampling.temperature == 0.7
    assert line.sampling.order[2:] == ("repetition_penalty", "top_k", "typical_p", "top_p", "min_p", "temperature")


def test_the_one_token_at_all_ends_is_a_stop_reason(tmp_path):
    ends = [{"prompt": text, "tokens": [*ids, 2050]} for text, ids, _ in RUNS]
    log = read_log(str(file_of(tmp_path, lines(ends))))
    assert [line.stop_reason for line in log.lines] == ["eos", "eos"]
    assert "since all runs end in 2050" in log.notes
    loops = [{"prompt": text, "tokens": [*ids, 2050, 2050]} for text, ids, _ in RUNS]
    with pytest.raises(TokensError, match="key 'stop_reason' is missing"):
        read_log(str(file_of(tmp_path, lines(loops))))


def test_gaps_stay_gaps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gaps = [{"prompt": "a", "tokens": [1, None, 2], "stop_reason": "eos"}]
    assert convert(file_of(tmp_path, lines(gaps))).exit_code == 0
    assert json.loads(Path("converted.jsonl").read_text(encoding="utf-8"))["tokens"] == [1, None, 2]


def test_names_stand_for_one_key_each():
    seen = [name for group in names.KEYS.values() for name in group]
    assert len(seen) == len(set(seen))
    words = [word for group in names.REASONS.values() for word in group]
    assert len(words) == len(set(words))
    assert all(names.plain(name) == name for name in (*seen, *words, *names.FLAGS))
