"""What a T3 is made of: sizes, special ids, rotary scaling, aligned heads."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

from sampler.errors import WeightsError


@dataclass(frozen=True)
class T3Config:
    """Sizes and constants of one T3 checkpoint; the defaults are those of Chatterbox's English model.

    Sources: `models/t3/modules/t3_config.py`, `models/t3/llama_configs.py`, `models/t3/modules/perceiver.py` and
    `models/t3/inference/alignment_stream_analyzer.py` of chatterbox-tts 0.1.7.
    """

    name: str = "chatterbox-english"
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 30
    num_heads: int = 16
    text_vocab_size: int = 704
    speech_vocab_size: int = 8194
    max_text_tokens: int = 2048
    max_speech_tokens: int = 4096
    start_text_id: int = 255
    stop_text_id: int = 0
    bos_id: int = 6561
    eos_id: int = 6562
    speaker_size: int = 256
    prompt_length: int = 150
    perceiver_queries: int = 32
    perceiver_heads: int = 4
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_factor: float = 8.0
    rope_low_frequency_factor: float = 1.0
    rope_high_frequency_factor: float = 4.0
    rope_original_length: int = 8192
    aligned_heads: tuple[tuple[int, int], ...] = ((12, 15), (13, 11), (9, 2))
    """(layer, head) pairs whose attention follows the text, both from 0."""
    tokenizer: Literal["english", "multilingual"] = "english"
    """Which of upstream's text front ends the checkpoint was trained with."""
    languages: tuple[str, ...] = ("en",)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def conditioning_length(self) -> int:
        """Rows of conditioning before the text: speaker, perceiver queries, emotion."""
        return 1 + self.perceiver_queries + 1

    @property
    def text_positions(self) -> int:
        """Rows of the text position table (`max_text_tokens + 2` in upstream's T3.__init__)."""
        return self.max_text_tokens + 2

    @property
    def speech_positions(self) -> int:
        """Rows of the speech position table (`max_speech_tokens + 2 + 2` in upstream's T3.__init__)."""
        return self.max_speech_tokens + 4

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str) -> Self:
        """Build from the content of a `config.json`; WeightsError names `source` and the first wrong key."""
        known = {field.name for field in fields(cls)}
        for problem, keys in (("unknown", data.keys() - known), ("missing", known - data.keys())):
            if keys:
                raise WeightsError(
                    f"{source}: {problem} key {min(keys)!r}", hint=f"known keys: {', '.join(sorted(known))}"
                )
        heads = tuple((int(layer), int(head)) for layer, head in data["aligned_heads"])
        return cls(**{**data, "aligned_heads": heads, "languages": tuple(data["languages"])})


CHATTERBOX_ENGLISH = T3Config()

CHATTERBOX_MULTILINGUAL = replace(
    CHATTERBOX_ENGLISH,
    name="chatterbox-multilingual",
    text_vocab_size=2454,
    tokenizer="multilingual",
    languages=(
        *("ar", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "it", "ja", "ko", "ms", "nl", "no", "pl", "pt"),
        *("ru", "sv", "sw", "tr", "zh"),
    ),
)
