"""Which names of a log stand for which key of TOKENS.jsonl, and which words for which stop reason."""

import re
from collections.abc import Mapping
from typing import Final

from sampler.requests import StopReason
from sampler.results.store.tokens import FIELDS, TokenLine

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "tokens": (
        *("token_ids", "speech_tokens", "speech_token_ids", "ids", "output_ids", "output_token_ids", "output_tokens"),
        *("generated_ids", "generated_tokens", "generated_token_ids", "completion_ids", "completion_token_ids"),
        *("response_ids", "response_token_ids", "response_tokens", "audio_tokens", "audio_token_ids", "audio_codes"),
        *("speech_ids", "semantic_tokens", "acoustic_tokens", "new_tokens", "sampled_tokens", "token_list", "codes"),
    ),
    "stop_reason": (
        *("finish_reason", "stop_type", "done_reason", "end_reason", "finish", "termination", "termination_reason"),
        *("stopping_reason", "stopped_by", "reason", "stop", "ended_by"),
    ),
    "prompt": (
        *("prompt_id", "text_id", "utterance_id", "utt_id", "utterance", "utt", "sentence_id", "custom_id", "name"),
        *("key", "prompt_name", "sample_id", "sample", "file", "filename", "id"),
    ),
    "text": ("input_text", "prompt_text", "sentence", "transcript", "spoken_text", "input"),
    "logprobs": ("token_logprobs", "log_probs", "logprob", "logps", "log_probabilities"),
    "entropy": ("entropies",),
    "rank": ("ranks",),
    "margin": ("margins",),
    "position": ("positions", "text_positions"),
    "seed": ("random_seed", "rng_seed"),
    "language": ("lang", "language_id", "language_code", "locale"),
    "config": (
        *("sampling_params", "sampling_parameters", "sampling", "generation_config", "generation_settings"),
        *("parameters", "params", "generation_params", "generate_kwargs"),
    ),
}
"""Names seen for each key, the surest first. Names are compared in small letters, with `_` between words."""

PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "temperature": ("temp",),
    "repetition_penalty": ("repeat_penalty", "rep_penalty"),
    "frequency_penalty": ("freq_penalty",),
    "presence_penalty": ("pres_penalty",),
    "cfg_weight": (),
    "top_k": ("topk",),
    "top_p": ("topp",),
    "min_p": ("minp",),
    "typical_p": (),
}
"""Names seen for sampling parameters, inside of `config` or beside the tokens."""

REASONS: Final[Mapping[StopReason, tuple[str, ...]]] = {
    "eos": (
        *("eos", "stop", "eos_token", "eos_token_id", "end", "stop_token", "end_of_speech", "end_of_sequence", "eog"),
        *(
            "end_of_text",
            "endoftext",
            "eot",
            "end_turn",
            "finished",
            "done",
            "completed",
            "complete",
            "natural",
            *("ended", "eos_reached", "hit_eos", "stop_token_reached", "stopped", "reached_eos", "eos_id", "s"),
            *("stop_token_id", "eot_id", "im_end", "end_of_stream", "end_of_audio", "end_of_turn", "eos_token_reached"),
        ),
    ),
    "length": (
        *("length", "max_tokens", "max_new_tokens", "max_length", "max_len", "limit", "cap", "token_limit", "max"),
        *("max_output_tokens", "max_completion_tokens", "model_length", "truncated", "budget", "max_steps", "maxlen"),
        *(
            "max_seq_len",
            "max_sequence_length",
            "length_limit",
            "limit_reached",
            "cap_reached",
            "hit_cap",
            "max_reached",
            *("max_tokens_reached", "reached_max_tokens", "max_length_reached", "reached_max_length", "hit_max_tokens"),
            *("hit_max_length", "max_new_tokens_reached", "out_of_tokens"),
        ),
    ),
    "forced_eos": ("forced_eos", "forced", "force_eos", "analyzer", "guard"),
    "error": ("error", "abort", "aborted", "cancelled", "canceled", "timeout", "exception", "failed", "interrupted"),
}
"""Words seen for each stop reason."""

FLAGS: Final[Mapping[str, tuple[StopReason, StopReason | None]]] = {
    "stopped_eos": ("eos", None),
    "stopped_limit": ("length", None),
    "eos": ("eos", "length"),
    "hit_eos": ("eos", "length"),
    "eos_reached": ("eos", "length"),
    "reached_eos": ("eos", "length"),
    "has_eos": ("eos", "length"),
    "ended": ("eos", "length"),
    "ended_with_eos": ("eos", "length"),
    "stop": ("eos", "length"),
    "finished": ("eos", "length"),
    "truncated": ("length", "eos"),
    "hit_cap": ("length", "eos"),
    "hit_max": ("length", "eos"),
    "hit_limit": ("length", "eos"),
    "max_tokens_reached": ("length", "eos"),
}
"""Keys that are true or false, and the stop reasons that these mean; None: it means none by itself."""

STOP_STRINGS: Final = frozenset({"word", "stop_sequence", "stop_string", "stopped_word"})
"""Words for runs that a string ended, which is no end of the model's own."""

CHUNKS: Final = frozenset({"", "none", "null", "in_progress", "running"})
"""Words of runs that have not ended."""


def plain(name: str) -> str:
    """A name in small letters with `_` between its words: `stopReason`, `Stop Reason` and `stop-reason` are one."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[\s\-.]+", "_", parted.strip()).lower()


CANONICAL: Final = frozenset(TokenLine.model_fields)
KEY_OF: Final[Mapping[str, str]] = {seen: key for key, names in KEYS.items() for seen in (key, *names)} | {
    key: key for key in CANONICAL
}
PARAMETER_OF: Final[Mapping[str, str]] = {seen: key for key, names in PARAMETERS.items() for seen in (key, *names)} | {
    key: key for key in FIELDS
}
REASON_OF: Final[Mapping[str, StopReason]] = {word: reason for reason, words in REASONS.items() for word in words}
