"""Logs as people have them: files of many kinds, each with what it is, or with what is said of it."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np

from tests.interface.server_answers import (
    ONE,
    RUNS,
    TWO,
    chat,
    lines,
    llama,
    llama_stream,
    output,
    runs,
    sglang,
    stream,
    tgi,
    vllm,
)  # fmt: skip


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("port.jsonl"))
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


PLAIN = lines(runs())
STOP = runs(("stop", "max_tokens"))
NO_NAME = [(f"cmpl-{number}", ids, reason) for number, (_, ids, reason) in enumerate(RUNS)]

READ = {
    "JSON lines": PLAIN,
    "ndjson": PLAIN,
    "without a last newline": PLAIN.rstrip(),
    "lines that end in CR LF": PLAIN.replace("\n", "\r\n"),
    "a JSON array": json.dumps(runs()),
    "an indented array": json.dumps(runs(), indent=2),
    "an object with a list": json.dumps({"model": "t3", "runs": runs()}),
    "an indented object with a list": json.dumps({"date": "2026-01-01", "results": runs()}, indent=4),
    "objects one after the other": "\n".join(json.dumps(one, indent=1) for one in runs()),
    "objects by prompt": json.dumps(
        {one["prompt"]: {key: one[key] for key in ("tokens", "stop_reason")} for one in runs()}
    ),
    "lists by prompt": json.dumps(
        {one["prompt"]: [{key: one[key] for key in ("tokens", "stop_reason")}] for one in runs()}
    ),
    "columns": json.dumps({key: [one[key] for one in runs()] for key in ("prompt", "tokens", "stop_reason")}),
    "columns in the plural": json.dumps(
        {f"{key}s": [one[key] for one in STOP] for key in ("prompt", "stop_reason")}
        | {"tokens": [one["tokens"] for one in STOP]}
    ),
    "gzip": gzip.compress(PLAIN.encode()),
    "gzip of an array": gzip.compress(json.dumps(runs()).encode()),
    "a byte-order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-32": PLAIN.encode("utf-32"),
    "a logger's prefix": lines(runs(), "2026-01-01 12:00:00,123 INFO port: "),
    "a prefix in brackets": lines(runs(), "[2026-01-01T12:00] {worker 3} "),
    "colours": lines(runs(), "\x1b[32mINFO\x1b[0m \x1b[1m", "\x1b[0m\n"),
    "text behind the JSON": lines(runs(), "generated ", " in 1.3 s\n"),
    "JSON in a logger's JSON": lines({"level": "INFO", "message": json.dumps(one)} for one in runs()),
    "commas at the ends of lines": lines(runs(), after=",\n"),
    "other lines of the logger": "INFO loading\nINFO ready, 2 slots\n" + lines(runs(), "INFO ") + "INFO bye\n",
    "token_ids": lines(runs(tokens="token_ids")),
    "speech_tokens": lines(runs(tokens="speech_tokens")),
    "ids": lines(runs(tokens="ids")),
    "output_ids": lines(runs(tokens="output_ids")),
    "names in camel case": lines(runs(tokens="tokenIds", reason="stopReason", prompt="promptId")),
    "names in capitals": lines(runs(tokens="TOKENS", reason="Stop-Reason", prompt="Prompt")),
    "id for the prompt": lines(runs(prompt="id")),
    "the text alone": lines(runs(prompt="text")),
    "finish_reason": lines(runs(("stop", "length"), reason="finish_reason")),
    "EOS": lines(runs(("EOS", "MAX_TOKENS"))),
    "stop": lines(runs(("eos", "limit"), reason="stop")),
    "eos_token": lines(runs(("eos_token", "max_new_tokens"))),
    "true and false": lines(
        runs((True, False), reason="stopped_eos", stopped_limit=False)[:1]
        + runs((True, True), reason="stopped_limit")[1:]
    ),
    "a flag": lines(runs((True, False), reason="hit_eos")),
    "the id that ended a run": lines(runs((2049, "length"))),
    "ids as texts": lines(runs(change=lambda ids: [str(one) for one in ids])),
    "ids as one text": lines(runs(change=lambda ids: " ".join(map(str, ids)))),
    "ids as a written list": lines(runs(change=str)),
    "ids as texts and floats": lines(runs(change=lambda ids: [str(ids[0]), float(ids[1]), *ids[2:]])),
    "reasons as tokens": lines(runs(("<EOS>", "max-tokens"))),
    "ids as floats": lines(runs(change=lambda ids: [float(one) for one in ids])),
    "one row of a batch": lines(runs(change=lambda ids: [ids])),
    "one column": lines(runs(change=lambda ids: [[one] for one in ids])),
    "objects with ids": lines(runs(change=lambda ids: [{"id": one, "piece": "x"} for one in ids])),
    "pieces beside ids": lines(
        [one | {"token_ids": one["tokens"], "tokens": ["a"] * len(one["tokens"])} for one in runs()]
    ),
    "padded with -100": lines(runs(change=lambda ids: [*ids, *[-100] * 3])),
    "null in logprobs": lines([one | {"logprobs": [None, *[-1.0] * (len(one["tokens"]) - 1)]} for one in runs()]),
    "-inf in logprobs": lines(
        [one | {"logprobs": [-1.0] * (len(one["tokens"]) - 1) + [-float("inf")]} for one in runs()]
    ),
    "top log-probabilities": lines([one | {"logprobs": [{"5": -1.0}] * len(one["tokens"])} for one in runs()]),
    "further keys": lines(runs(duration=2.5, model="t3", timestamp="2026-01-01")),
    "vLLM, completions": lines(
        [vllm(text, ids, reason) for (text, ids, _), reason in zip(RUNS, ("stop", "length"), strict=True)]
    ),
    "vLLM, RequestOutput": json.dumps([output("harbour", ONE[1], "stop"), output("lighthouse", TWO[1], "length")]),
    "OpenAI, chat with ids as tokens": lines([chat("harbour", ONE[1], "stop"), chat("lighthouse", TWO[1], "length")]),
    "llama.cpp": lines([llama("harbour", ONE[1], "eos"), llama("lighthouse", TWO[1], "limit")]),
    "llama.cpp, indented": json.dumps(
        [llama("harbour", ONE[1], "eos"), llama("lighthouse", TWO[1], "limit")], indent=1
    ),
    "llama.cpp, old": lines([llama(*ONE[:2], "", stopped_eos=True), llama(*TWO[:2], "", stopped_limit=True)]),
    "llama.cpp, streams": llama_stream(*ONE[:2]) + lines([llama("lighthouse", TWO[1], "limit")], "data: "),
    "SGLang": lines(
        [
            sglang("harbour", ONE[1], {"type": "stop", "matched": 2049}),
            sglang("lighthouse", TWO[1], {"type": "length", "length": 4}),
        ]
    ),
    "TGI": json.dumps([tgi("harbour", ONE[1], "eos_token"), tgi("lighthouse", TWO[1], "length")]),
}
"""Files that are RUNS, by their kind."""

PLAIN_KINDS = (
    *("JSON lines", "ndjson", "without a last newline", "lines that end in CR LF", "a JSON array", "an indented array"),
    *("objects one after the other", "gzip", "gzip of an array", "a byte-order mark", "commas at the ends of lines"),
)
"""Those with the names and values of TOKENS.jsonl."""

REFUSED = {
    "nothing": (b"", "has no lines"),
    "blank": (b" \n\n", "has no lines"),
    "a NumPy array": (npy(np.arange(5)), "is a NumPy array (for ids in numpy.load(FILE).tolist(): print(json.dumps("),
    "several NumPy arrays": (
        npz(a=np.arange(5)),
        "is an archive of NumPy arrays (.npz) (ids = row.tolist(), one run a line:",
    ),
    "a zip archive": (zipped("port.jsonl"), "is a zip archive (unpack it first: unzip FILE)"),
    "torch.save": (zipped("port/data.pkl"), "is a file of torch.save (ids = row.tolist(), one run a line: print("),
    "a tar archive": (tarred(), "is a tar archive (unpack it first: tar -xf FILE)"),
    "a gzipped tar archive": (gzip.compress(tarred()), "is a tar archive (unpack it first: tar -xf FILE)"),
    "a pickle": (pickle.dumps([1, 2]), "is a pickle (ids = row.tolist(), one run a line: print(json.dumps("),
    "CSV": (b"prompt,tokens\nharbour,311 87\n", "is a table (CSV) (for r in csv.DictReader(file): print("),
    "CSV of ids": (b"311,87,2049\n17,17,4\n", "has ids alone, without prompts"),
    "TSV": (b"harbour\t311 87\nlighthouse\t17\n", "is a table (CSV) (for r in csv.DictReader(file): print("),
    "CSV with semicolons": (b"prompt;tokens\nharbour;311 87\n", "is a table (CSV)"),
    "CSV with lists": (b'prompt,tokens\nharbour,"[311, 87]"\n', "is a table (CSV)"),
    "YAML": (b"- prompt: harbour\n  tokens: [311, 87]\n  stop: eos, really\n", "has no JSON object"),
    "a tensor's repr": (b"tensor([311, 87, 2049])\n", "is Python's repr, not JSON"),
    "a tuple's repr": (b"(311, 87, 2049)\n", "is Python's repr, not JSON"),
    "null": (b"null", "has no JSON object"),
    "text with ids": (b"311 87 2049\n17 17 4 9\n", "has ids alone, without prompts (one run a line: print(json.dumps("),
    "prose": (b"see the attachment\n", "has no JSON object"),
    "Python's repr": (repr(runs()).encode(), "is Python's repr, not JSON (one run a line: print(json.dumps("),
    "HTML": (b"<!DOCTYPE html><html><body>502</body></html>", "is a page of HTML or XML"),
    "Parquet": (b"PAR1" + bytes(40), "is a Parquet table (pandas.read_parquet(FILE).to_json("),
    "xz": (b"\xfd7zXZ\0\0", "is compressed with xz (unpack it first: unxz FILE)"),
    "gzip that was cut": (gzip.compress(PLAIN.encode())[:-12], "is no whole gzip file"),
    "MessagePack": (
        b"\x83\xa6prompt\xa1a\xa6tokens\x92\xcd\x017\x00",
        "is a binary file of an unknown kind (one run a line:",
    ),
    "Latin-1": (b'{"prompt": "caf\xe9", "tokens": [1], "stop_reason": "eos"}', "is no UTF-8 text: "),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a Git LFS pointer, not the file",
    ),
    "audio": (b"RIFF\0\0\0\0WAVEfmt ", "is audio, not a log of tokens"),
    "a list of ids": (b"[311, 87, 2049]", "is a list of ids, without prompts"),
    "lists of ids": (b"[[311, 87], [17, 17]]", "is a list of lists, without prompts"),
    "lines of ids": (b"[311, 87]\n[17, 17]\n", "is a list, not a run: [311, 87]"),
    "JSON that was cut": (PLAIN[:-20].encode(), "line 2 is no JSON"),
    "no stop reason": (
        lines([{"prompt": "a", "tokens": [1, 2]}]),
        "key 'stop_reason' is missing (eos, or length for a run",
    ),
    "no tokens": (lines([{"prompt": "a", "audio": "a.wav"}]), "key 'tokens' is missing (its keys: prompt, audio)"),
    "no prompt": (lines([{"tokens": [1, 2], "stop_reason": "eos"}]), "key 'prompt' is missing"),
    "a misspelt key": (lines(runs(reason="stop_reson")), "unknown key 'stop_reson' (did you mean 'stop_reason'?)"),
    "an unknown reason": (lines(runs(("because", "eos"))), "stop_reason = 'because' (expected eos, forced_eos, length"),
    "a stop string": (lines(runs(("stop_sequence", "eos"))), "a string ended the run, not the model"),
    "pieces of text": (
        lines(runs(change=lambda ids: [" a"] * 3)),
        "tokens[0] = ' a' is a piece of text (log ids: ask vLLM",
    ),
    "a batch in a line": (
        lines(runs(change=lambda ids: [ids, ids])),
        "tokens has 2 lists: a batch of runs, or codebooks",
    ),
    "two keys that differ": (lines([one | {"token_ids": [1]} for one in runs()]), "`tokens` and `token_ids` differ"),
    "halves of ids": (lines(runs(change=lambda ids: [0.5, *ids])), "tokens[0] = 0.5 (expected a list of whole numbers"),
    "NaN": (PLAIN.replace("311", "NaN"), "tokens[0] = NaN"),
    "one token a line": (lines([{"token": 5, "text": "x"}]), "has one token (write all tokens of a run in one line)"),
    "sequences of generate()": (
        json.dumps({"sequences": [[1, 2, 3]]}),
        "has `sequences` of generate(), which may hold",
    ),
    "OpenAI without ids": (
        lines([chat("a", (1, 2), "stop", with_ids=False)]),
        "is an answer with text and no ids (log ids:",
    ),
    "vLLM without ids": (lines([vllm("a", None, "stop")]), "is an answer with text and no ids (log ids: ask vLLM for"),
    "llama.cpp without ids": (lines([llama("a", (), "eos")]), "is an answer with text and no ids"),
    "llama.cpp, a stop word": (lines([llama("a", (1, 2), "word")]), "a string ended the run, not the model"),
    "Ollama": (
        json.dumps({"model": "m", "response": "x", "done_reason": "stop", "context": [1]}),
        "is an answer with text",
    ),
    "an error of a server": (json.dumps({"error": {"message": "overloaded", "code": 503}}), "is the error of a server"),
    "a stream that was cut": (stream().rsplit("data: {", 1)[0], "is a stream without its end"),
    "a run file": (json.dumps({"kind": "header", "version": 1}), "is the run file of sampler, not its tokens"),
}
"""Files that are no log, or may mean two things, and what is said."""
