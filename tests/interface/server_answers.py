"""Two runs, and the answers of servers that have them."""

import json

ONE, TWO = ("harbour", (311, 87, 2049), "eos"), ("lighthouse", (17, 17, 4, 9), "length")
RUNS = [ONE, TWO]


def runs(
    reasons=("eos", "length"), tokens="tokens", reason="stop_reason", prompt="prompt", change=lambda ids: ids, **more
):
    """The two runs under other names, with other values."""
    pairs = zip(RUNS, reasons, strict=True)
    return [{prompt: text, tokens: change(list(ids)), reason: said} | more for (text, ids, _), said in pairs]


def lines(objects, before="", after="\n"):
    return "".join(f"{before}{json.dumps(one)}{after}" for one in objects)


def choice(ids, reason, **more):
    return (
        {"index": 0, "text": "x", "finish_reason": reason, "logprobs": None}
        | more
        | ({"token_ids": ids} if ids else {})
    )


def vllm(text, ids, reason, **more):
    own = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "t3", "usage": {"total_tokens": 9}}
    answer = own | {"choices": [choice(ids, reason, stop_reason=None, prompt_token_ids=None, prompt_logprobs=None)]}
    return {"request": {"model": "t3", "prompt": text, "max_tokens": 4} | more, "response": answer}


def chat(text, ids, reason, with_ids=True):
    content = [
        {"token": f"token_id:{one}" if with_ids else " a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
        for one in ids
    ]
    message = {"role": "assistant", "content": "x", "refusal": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": {"total_tokens": 9}}
    body |= {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": reason}]}
    return {"id": "batch_req_1", "custom_id": text, "response": {"status_code": 200, "body": body}, "error": None}


def llama(text, ids, reason, **more):
    answer = {"index": 0, "content": "x", "tokens": list(ids), "id_slot": 0, "stop": True, "model": "t3.gguf"}
    answer |= {"tokens_predicted": len(ids), "tokens_evaluated": 4, "prompt": text, "truncated": False}
    answer |= {"stop_type": reason, "stopping_word": "", "tokens_cached": 9, "timings": {"predicted_n": len(ids)}}
    return answer | more


SETTINGS = {
    "seed": 7,
    "temperature": 0.699999988079071,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
}
SETTINGS |= {"samplers": ["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"], "mirostat": 0}


def sglang(text, ids, reason):
    meta = {"id": "a1", "finish_reason": reason, "prompt_tokens": 4, "completion_tokens": len(ids)}
    return {"prompt": text, "text": "x", "output_ids": list(ids), "meta_info": meta}


def tgi(text, ids, reason):
    tokens = [{"id": one, "text": "x", "logprob": -0.5, "special": False} for one in ids]
    details = {"finish_reason": reason, "generated_tokens": len(ids), "seed": None, "prefill": [], "tokens": tokens}
    return {"inputs_id": 1, "prompt": text, "generated_text": "x", "details": details}


def output(text, ids, reason):
    own = {"index": 0, "text": "x", "token_ids": list(ids), "cumulative_logprob": -3.5, "logprobs": None}
    own |= {"finish_reason": reason, "stop_reason": None}
    return {"request_id": "0", "prompt": text, "prompt_token_ids": [1, 2], "outputs": [own], "finished": True}


def stream():
    """Chunks of vLLM, as the server sends them."""
    parts = []
    for number, (_, ids, reason) in enumerate(
        [(0, ids, r) for (_, ids, _), r in zip(RUNS, ("stop", "length"), strict=True)]
    ):
        for place, one in enumerate(ids):
            said = reason if place == len(ids) - 1 else None
            parts.append({"id": f"cmpl-{number}", "object": "text_completion", "choices": [choice([one], said)]})
    return lines(parts, "data: ", "\n\n") + "data: [DONE]\n"


def llama_stream(text, ids):
    parts = [
        {"index": 0, "content": "x", "tokens": [one], "stop": False, "id_slot": 0, "tokens_predicted": 1} for one in ids
    ]
    return lines([*parts, llama(text, (), "eos")], "data: ", "\n\n")
