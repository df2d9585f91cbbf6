"""Speech from espeak-ng with the time of every word, and its 25 codes per second."""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 22_050
SAMPLES_PER_CODE = SAMPLE_RATE // 25
HOP = SAMPLES_PER_CODE // 2
MEL_BANDS = 40
WINDOW = 1_024
# A noise floor, as in any recording: with digital silence every pause would be one repeated code.
NOISE_AMPLITUDE = 40.0

VARIANTS = ("", "+f2", "+m3", "+f5", "+m7", "+f3")
"""espeak-ng voice variants of Finch's six voices; voice 0 is the language's own."""

_SYNCHRONOUS, _UTF8 = 2, 1
_EVENT_WORD, _EVENT_CLAUSE_END, _PARAMETER_RATE = 1, 5, 1


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Speech:
    """samples: int16 at 22,050 Hz. marks: (seconds, character) pairs, rising in both, first (0, 0), last the end."""

    samples: NDArray[np.int16]
    marks: NDArray[np.float64]


class Espeak:
    """espeak-ng as a shared library (package `espeakng-loader`, GPL-3.0), one instance per process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng gives {rate} samples a second, expected {SAMPLE_RATE}")
        self._samples: list[NDArray[np.int16]] = []
        self._events: list[tuple[float, int]] = []
        self._callback = _Callback(self._receive)  # keep a reference, or the library would call freed memory
        self._library.espeak_SetSynthCallback(self._callback)

    @property
    def version(self) -> str:
        """The library's version, as "1.52.0"."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return str(self._library.espeak_Info(None).decode())

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != 0:
            event = events[index]
            if event.type in (_EVENT_WORD, _EVENT_CLAUSE_END):
                self._events.append((event.sample / SAMPLE_RATE, event.text_position - 1))
            index += 1
        return 0

    def say(self, text: str, voice: str, words_per_minute: int) -> Speech:
        """Speak `text`. Raises RuntimeError if espeak-ng does not know `voice`."""
        self._samples, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
        data = text.encode() + b"\0"
        size = ctypes.c_size_t(len(data))
        self._library.espeak_Synth(data, size, 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._samples)
        return Speech(samples, _rising(self._events, len(samples) / SAMPLE_RATE, len(text)))


def _rising(events: list[tuple[float, int]], seconds: float, characters: int) -> NDArray[np.float64]:
    """Keep only events that move forward in both time and text."""
    marks = [(0.0, 0.0)]
    for time, character in [*events, (seconds, characters - 1)]:
        if time > marks[-1][0] and marks[-1][1] < character < characters:
            marks.append((time, float(character)))
    if marks[-1][0] < seconds:
        marks.append((seconds, marks[-1][1]))
    return np.array(marks)


def positions(speech: Speech, text: str, normalize: Callable[[str], str]) -> NDArray[np.float32]:
    """The character of the normalised text that is spoken at the middle of each code: (codes,), rising.

    normalize must work on single characters too (NFKD makes two of one), so that positions in `text` can be mapped.
    """
    lengths = [len(normalize(character)) for character in text]
    moved = np.concatenate([[0.0], np.cumsum(lengths)])
    count = code_count(speech.samples)
    middles = (np.arange(count) + 0.5) / 25.0
    character = np.interp(middles, speech.marks[:, 0], speech.marks[:, 1])
    spoken: NDArray[np.float32] = np.interp(character, np.arange(len(moved)), moved).astype(np.float32)
    return spoken


def code_count(samples: NDArray[np.int16]) -> int:
    """Number of codes for the samples: 25 a second, rounded."""
    return max(1, round(len(samples) / SAMPLES_PER_CODE))


@functools.cache
def _mel_filters() -> Any:
    import torch
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=WINDOW // 2 + 1,
        num_mel_filters=MEL_BANDS,
        min_frequency=50.0,
        max_frequency=8_000.0,
        sampling_rate=SAMPLE_RATE,
        mel_scale="htk",
    )
    return torch.from_numpy(filters.astype(np.float32))


def features(samples: NDArray[np.int16], noise_seed: int) -> NDArray[np.float32]:
    """Pairs of 40-band log-mel frames at 50 Hz: (codes, 80), natural logarithm of power."""
    import torch

    count = code_count(samples)
    noise = np.random.default_rng(noise_seed).normal(0.0, NOISE_AMPLITUDE, count * SAMPLES_PER_CODE)
    padded = noise.astype(np.float32)
    length = min(len(samples), len(padded))
    padded[:length] += samples[:length]
    spectrum = torch.stft(
        torch.from_numpy(padded / 32_768.0), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True
    )
    power = spectrum.abs().square()[:, : 2 * count].T @ _mel_filters()
    frames: NDArray[np.float32] = torch.log(power.clamp_min(1e-8)).numpy()
    return frames.reshape(count, 2 * MEL_BANDS)


def nearest_codes(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The id of the nearest row of the codebook (Euclidean): vectors (N, 80), codebook (K, 80) -> (N,)."""
    import torch

    rows, book = torch.from_numpy(vectors), torch.from_numpy(codebook)
    offset = book.square().sum(1) / 2
    ids = [(chunk @ book.T - offset).argmax(1) for chunk in torch.split(rows, 8_192)]
    return torch.cat(ids).numpy().astype(np.uint16)
