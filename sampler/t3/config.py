"""The configuration of a T3: backbone, sizes, special ids, positions, aligned heads."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from sampler.errors import WeightsError
from sampler.runtime.reading.json_text import read_json
from sampler.runtime.reading.source import short
from sampler.t3.files import file_of

ONLY_GPT2 = ("positions", "layer_norm_eps")
ONLY_LLAMA = (
    *("max_speech_tokens", "perceiver_queries", "perceiver_heads", "rms_norm_eps", "rope_theta", "rope_factor"),
    *("rope_low_frequency_factor", "rope_high_frequency_factor", "rope_original_length"),
)
"""Fields that one backbone alone has."""

MOST = {
    "num_layers": 1_000,
    **dict.fromkeys(("hidden_size", "intermediate_size", "text_vocab_size", "speech_vocab_size"), 1 << 20),
    **dict.fromkeys(("max_text_tokens", "max_speech_tokens", "speaker_size", "positions"), 1 << 20),
    "perceiver_queries": 1 << 20,
}
"""The largest sizes; Chatterbox has tables of 50,276 rows at most."""

LARGEST = 1e12
"""No constant of a network is larger."""


FrontEnd = Literal["english", "multilingual", "turbo"]
"""What upstream does to a text before its tokenizer."""


class UnfitError(WeightsError):
    """A size or an id that no T3 can have. field, value: of a T3Config."""

    def __init__(self, config: str, field: str, value: object, expected: str) -> None:
        super().__init__(f"{config}: {field} = {short(value)}", hint=f"expected {expected}")
        self.field, self.value = field, value


@dataclass(frozen=True)
class T3Config:
    """Sizes and constants of one T3 checkpoint; the defaults are those of Chatterbox's English model.

    With the GPT-2 backbone the network has learned positions over the whole sequence instead of those of text and
    speech, a bias in its speech head, no perceiver, no emotion and no guidance: fields of those parts are ignored.
    Sources: `models/t3/modules/t3_config.py`, `models/t3/llama_configs.py`, `models/t3/modules/perceiver.py`,
    `models/t3/inference/alignment_stream_analyzer.py` and `tts_turbo.py` of chatterbox-tts 0.1.7.
    """

    name: str = "chatterbox-english"
    backbone: Literal["llama", "gpt2"] = "llama"
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
    """Speech tokens of a voice's prompt; with GPT-2 their largest number."""
    perceiver_queries: int = 32
    perceiver_heads: int = 4
    positions: int = 8196
    """Rows of GPT-2's position table: conditioning, text and speech together."""
    layer_norm_eps: float = 1e-5
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_factor: float = 8.0
    rope_low_frequency_factor: float = 1.0
    rope_high_frequency_factor: float = 4.0
    rope_original_length: int = 8192
    aligned_heads: tuple[tuple[int, int], ...] = ((12, 15), (13, 11), (9, 2))
    """(layer, head) pairs whose attention follows the text, both from 0."""
    tokenizer: FrontEnd = "english"
    """The upstream text front end that the checkpoint was trained with."""
    languages: tuple[str, ...] = ("en",)

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def conditioning_length(self) -> int:
        """Rows before the text with a full prompt: speaker, perceiver queries, emotion; speaker, prompt with GPT-2."""
        return 1 + self.prompt_length if self.backbone == "gpt2" else 1 + self.perceiver_queries + 1

    @property
    def text_positions(self) -> int:
        """Largest number of text ids: the position table (`max_text_tokens + 2` in upstream's T3.__init__).

        GPT-2 has no such table and no start and stop: `max_text_tokens`.
        """
        return self.max_text_tokens if self.backbone == "gpt2" else self.max_text_tokens + 2

    @property
    def speech_positions(self) -> int:
        """Positions of BOS and speech: the position table (`max_speech_tokens + 2 + 2` in upstream's T3.__init__).

        With GPT-2 the rest of the sequence after the longest conditioning, the longest text and a second BOS.
        """
        if self.backbone == "gpt2":
            return self.positions - self.conditioning_length - self.text_positions - 1
        return self.max_speech_tokens + 4

    @property
    def guidance(self) -> bool:
        """Whether the network supports guidance: GPT-2 ignores it (`inference_turbo` has no such argument)."""
        return self.backbone == "llama"

    @property
    def bos_count(self) -> int:
        """BOS rows of the prefix in upstream's last version."""
        return 1 if self.backbone == "gpt2" else 2

    def __post_init__(self) -> None:
        """Reject sizes and ids that no T3 can have; WeightsError names the field and its value."""
        for name, fits, expected in self._requirements():
            if not fits:
                raise UnfitError(self.name, name, getattr(self, name), expected)

    def _requirements(self) -> list[tuple[str, bool, str]]:
        sizes = [
            *("hidden_size", "intermediate_size", "num_layers", "num_heads", "text_vocab_size", "speech_vocab_size"),
            *("max_text_tokens", "max_speech_tokens", "speaker_size", "perceiver_queries", "perceiver_heads"),
        ]
        width, heads = self.hidden_size, self.num_heads
        inside = all(0 <= at < self.num_layers and 0 <= head < heads for at, head in self.aligned_heads)
        constants = ("layer_norm_eps", "rms_norm_eps", "rope_theta", "rope_factor", "rope_original_length")
        low, high = self.rope_low_frequency_factor, self.rope_high_frequency_factor
        return [
            *((name, getattr(self, name) >= 1, "1 or more") for name in sizes),
            *((name, getattr(self, name) <= most, f"at most {most:,}") for name, most in MOST.items()),
            (
                "num_heads",
                heads >= 1 and width % (2 * heads) == 0,
                f"a divisor of {width} that leaves an even head size",
            ),
            (
                "perceiver_heads",
                self.perceiver_heads >= 1 and width % self.perceiver_heads == 0,
                f"a divisor of {width}",
            ),
            *(
                (name, 0 <= getattr(self, name) < self.speech_vocab_size, "a speech token")
                for name in ("bos_id", "eos_id")
            ),
            *(
                (name, 0 <= getattr(self, name) < self.text_vocab_size, "a text token")
                for name in ("start_text_id", "stop_text_id")
            ),
            (
                "positions",
                self.backbone == "llama" or self.speech_positions >= 1,
                "room for conditioning, text and speech",
            ),
            (
                "prompt_length",
                self.prompt_length >= 0 and (self.backbone == "gpt2" or self.prompt_length <= self.speech_positions),
                "no more than there are positions",
            ),
            ("aligned_heads", inside, f"pairs below ({self.num_layers}, {heads})"),
            *((name, 0 < getattr(self, name) < LARGEST, "a number > 0") for name in constants),
            *((name, getattr(self, name) < 1, "a number < 1") for name in ("layer_norm_eps", "rms_norm_eps")),
            ("rope_low_frequency_factor", 0 < low < high, f"a number > 0 and below {high}"),
            ("rope_high_frequency_factor", high < LARGEST, f"a number < {LARGEST:g}"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `config.json`; WeightsError names the file and the first invalid key.

        Every key that the backbone needs has to be there: another model's value would give wrong tokens without a word.
        """
        document = read_json(file_of(path, f"keys: {', '.join(cls.keys())}"))
        if isinstance(document.data, dict):
            is_turbo = document.data.get("backbone") == "gpt2"
            usual = CHATTERBOX_TURBO if is_turbo else CHATTERBOX_ENGLISH
            for name in (each.name for each in fields(cls)):
                if name not in document.data and name not in (ONLY_LLAMA if is_turbo else ONLY_GPT2):
                    hint = f"{usual.name} has {getattr(usual, name)!r}"
                    raise document.refuse(f"key {name!r} is missing", hint)
        try:
            return document.check(TypeAdapter(cls), strict=True, extra="forbid")
        except UnfitError as error:
            raise document.refuse(f"{error.field} = {short(error.value)}", error.hint, (error.field,)) from error

    @classmethod
    def keys(cls) -> list[str]:
        """All keys of a `config.json`."""
        return [field.name for field in fields(cls)]


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

CHATTERBOX_TURBO = T3Config(
    name="chatterbox-turbo",
    backbone="gpt2",
    num_layers=24,
    text_vocab_size=50_276,
    speech_vocab_size=6_563,
    prompt_length=375,
    aligned_heads=(),
    tokenizer="turbo",
)

CHATTERBOX_NANO = replace(
    CHATTERBOX_TURBO, name="chatterbox-nano", hidden_size=768, intermediate_size=3_072, num_layers=12, num_heads=12
)
"""Turbo's smaller version: in upstream's repository since commit 5de7a54, in no wheel up to 0.1.7."""

FINCH = T3Config(
    name="finch",
    hidden_size=192,
    intermediate_size=512,
    num_layers=6,
    num_heads=4,
    text_vocab_size=78,
    speech_vocab_size=2_050,
    max_text_tokens=1_024,
    start_text_id=3,
    bos_id=2_048,
    eos_id=2_049,
    aligned_heads=((2, 1), (3, 3), (4, 0)),
    tokenizer="multilingual",
    languages=("en", "de", "fr", "es", "it"),
)
"""The embedded model, as its config.json has it: for a file that lost it."""
