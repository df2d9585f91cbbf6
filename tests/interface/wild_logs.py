"""More logs as people have them: of loggers, tables and dashboards, and files that are no log."""

import gzip
import json
import pickle
import struct

from tests.interface.server_answers import RUNS, lines, runs, vllm

PLAIN = lines(runs())
WRITE = "(one run a line: print(json.dumps("


def ended(*reasons):
    return lines(runs(reasons))


READ = {
    "comments": "// port 0.3 {debug}\n# 2 runs\n" + PLAIN,
    "a fence of Markdown": f"```json\n{json.dumps(runs(), indent=1)}\n```\n",
    "lines in a fence": f"```\n{PLAIN}```\n",
    "an array that was not closed": "[\n" + lines(runs(), "  ", ",\n"),
    "events of a server": "".join(
        f"event: message\nid: {at}\ndata: {json.dumps(one)}\n\n" for at, one in enumerate(runs())
    ),
    "Docker": lines([{"log": json.dumps(one) + "\n", "stream": "stdout", "time": "2026"} for one in runs()]),
    "Docker, with a prefix": lines([{"log": f"INFO: {json.dumps(one)}\n", "stream": "stderr"} for one in runs()]),
    "journald": lines([{"MESSAGE": json.dumps(one), "PRIORITY": "6", "_PID": "1"} for one in runs()]),
    "CloudWatch": json.dumps({"events": [{"timestamp": 1, "message": json.dumps(one)} for one in runs()]}),
    "Google's logging": json.dumps([{"insertId": "a", "jsonPayload": one, "severity": "INFO"} for one in runs()]),
    "Kubernetes": lines(runs(), "2026-01-01T00:00:00Z stdout F "),
    "gzip of UTF-16": gzip.compress(PLAIN.encode("utf-16")),
    "pandas by columns": json.dumps({key: {str(at): one[key] for at, one in enumerate(runs())} for key in runs()[0]}),
    "pandas, split": json.dumps(
        {"columns": list(runs()[0]), "index": [0, 1], "data": [list(one.values()) for one in runs()]}
    ),
    "pandas by rows": json.dumps({str(at): one for at, one in enumerate(runs())}),
    "pandas, table": json.dumps({"schema": {"fields": [{"name": "x"}]}, "data": runs()}),
    "a dashboard's table": json.dumps(
        {"_type": "table", "columns": list(runs()[0]), "data": [list(one.values()) for one in runs()]}
    ),
    "rows of a data set": json.dumps(
        {"features": [{"name": "x"}], "rows": [{"row_idx": at, "row": one} for at, one in enumerate(runs())]}
    ),
    "a run under `generation`": lines(
        [
            {"prompt": one["prompt"], "generation": {"ids": one["tokens"], "finish": one["stop_reason"]}}
            for one in runs()
        ]
    ),
    "generate() with its prompt": lines(
        [
            {"prompt": text, "input_ids": [5, 6], "output_ids": [5, 6, *ids], "stop": reason}
            for text, ids, reason in RUNS
        ]
    ),
    "generate() with its prompt, in batches": lines(
        [
            {"prompt": text, "input_ids": [[5, 6]], "output_ids": [[5, 6, *ids]], "stop": reason}
            for text, ids, reason in RUNS
        ]
    ),
    "a printed tensor": lines(runs(change=lambda ids: f"tensor({list(ids)}, device='cuda:0')")),
    "a printed array": lines(runs(change=lambda ids: f"array([{'  '.join(map(str, ids))}], dtype=int64)")),
    "hexadecimal ids": lines(runs(change=lambda ids: [hex(one) for one in ids])),
    "a prompt of id and text": lines([one | {"prompt": {"id": one["prompt"], "text": "x"}} for one in runs()]),
    "a prompt in a list": lines([one | {"prompt": [one["prompt"]]} for one in runs()]),
    "messages as prompt": lines([one | {"prompt": [{"role": "user", "content": one["prompt"]}]} for one in runs()]),
    "values of an enumeration": ended("StopReason.EOS", "FinishReason.MAX_TOKENS"),
    "values of a protobuf": ended("FINISH_REASON_STOP", "FINISH_REASON_LENGTH"),
    "marks as reasons": ended("</s>", "maxTokensReached"),
    "a chat's mark": ended("<|im_end|>", "reached_max_tokens"),
    "endings of a stream": ended("endOfStream", "hit max length"),
    "ids as reasons": ended("stop_token_id", "out of tokens"),
}
"""Files that are RUNS, by their kind."""

PLAIN_READ = {
    "records between marks": lines(runs(), "\x1e"),
    "gzip of gzip": gzip.compress(gzip.compress(PLAIN.encode())),
    "gzip of parts": b"".join(gzip.compress(lines([one]).encode()) for one in runs()),
    "lines that end in CR": PLAIN.replace("\n", "\r"),
}
"""Those with the names and values of TOKENS.jsonl."""

REFUSED = {
    "zeros behind the text": (PLAIN.encode() + bytes(4096), "is padded with zeros, as after a crash"),
    "zeros in the text": (PLAIN.encode().replace(b"87", bytes(600)), "has zeros between its letters: it is damaged"),
    "a program": (b"\x7fELF\2\1\1" + bytes(50), "is a binary file of an unknown kind"),
    "a film": (b"\0\0\0\x18ftypmp42" + bytes(30), "is a binary file of an unknown kind"),
    "TensorBoard": (struct.pack("<Q", 24) + b"\1\2\3\4" + bytes(40), "is a binary file of an unknown kind"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(range(40)), "is a binary file of an unknown kind"),
    "a protobuf": (b"\n\x07harbour\x12\x04\xb7\x02W\x81\x10", "is a binary file of an unknown kind"),
    "RAR": (b"Rar!\x1a\7\1\0" + bytes(30), "is a RAR archive (unpack it first)"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7-Zip archive (unpack it first)"),
    "a workbook": (
        b"PK\3\4\x14\0\6\0" + bytes(18) + b"\x13\0\0\0[Content_Types].xml",
        "is an Excel workbook (pandas.read_excel",
    ),
    "a photograph": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(20), "is a JPEG picture"),
    "an old pickle": (pickle.dumps([1, 2], 0), "is a pickle (ids = row.tolist()"),
    "an old pickle of objects": (pickle.dumps(runs(), 0), "is a pickle (ids = row.tolist()"),
    "Python's repr behind a prefix": ("".join(f"INFO {one}\n" for one in runs()), "is Python's repr, not JSON"),
    "two stop reasons": (
        lines([one | {"finish_reason": "length"} for one in runs()]),
        "`stop_reason` is eos, `finish_reason` is length: which is right?",
    ),
    "a printed array with a gap": (
        lines(runs(change=lambda ids: "[311 87 ... 4 2049]")),
        "tokens leaves ids out, as a long array",
    ),
    "tokens of TGI's stream": (
        lines([{"index": 1, "token": {"id": 311, "text": "x"}, "generated_text": None, "details": None}], "data:"),
        "has one token (write all tokens of a run in one line)",
    ),
    "OpenAI's responses": (
        json.dumps({"object": "response", "output": [{"type": "message", "content": []}]}),
        "is an answer with text and no ids (log ids",
    ),
    "Anthropic": (
        json.dumps({"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"}),
        "is an answer with text and no ids (log ids",
    ),
    "a report of check": (
        json.dumps({"engine": {"name": "a"}, "outcome": "agrees", "verdicts": []}),
        "is a report of sampler check, not the log (give the log",
    ),
    "not found": (json.dumps({"detail": "Not Found"}), "is the error of a server, without tokens (leave it out)"),
    "a stop reason in a list": (lines(runs((["eos"], "length"))), "stop_reason = ['eos'] (expected eos"),
    "an answer of another kind": (ended("content_filter", "length"), "stop_reason = 'content_filter' (expected eos"),
    "a request for all": (lines([vllm("a", [1, 2], "tool_calls")]), "stop_reason = 'tool_calls' (expected eos"),
    "brackets without an end": ("[" * 100_000, "is nested too deeply (expected at most 64"),
}
"""Files that are no log, or may mean two things, and what is said."""
