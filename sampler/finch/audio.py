"""Speech codes to sound: the codebook's spectra, and phases by the Griffin-Lim algorithm."""

import io
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from sampler.runtime.files import write_whole

SAMPLE_RATE, WINDOW, MEL_BANDS = 22_050, 1_024, 40
HOP = SAMPLE_RATE // 25 // 2
LOWEST, HIGHEST = 50.0, 8_000.0
"""Limits of the mel bands, in Hz."""

FLOOR = 1e-8
"""Power below which a band counts as silence."""

Array = NDArray[np.float64]


def load_codebook(folder: Path) -> NDArray[np.float32]:
    """Spectra of the codes: (codes, 80), two frames of 40 log-mel bands each."""
    return load_file(folder / "codebook.safetensors")["codebook"].astype(np.float32)


def mel_filters() -> Array:
    """Weights of frequencies in mel bands: (513, 40), triangles on O'Shaughnessy's scale as in HTK."""
    edges = 700.0 * (10.0 ** (np.linspace(_mel(LOWEST), _mel(HIGHEST), MEL_BANDS + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    filters: Array = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def _mel(frequency: float) -> float:
    return 2595.0 * float(np.log10(1.0 + frequency / 700.0))


def _transform() -> ShortTimeFFT:
    return ShortTimeFFT(hann(WINDOW, sym=False), HOP, SAMPLE_RATE, fft_mode="onesided")


def magnitudes(frames: Array, rounds: int = 60) -> Array:
    """Non-negative spectra whose mel bands are those of `frames` (T, 40): (T, 513).

    Multiplicative updates towards the least squared error (Lee and Seung 2001), starting from the transposed filters.
    """
    filters, wanted = mel_filters(), np.exp(frames)
    power = wanted @ (filters / np.maximum(filters.sum(0) ** 2, 1e-12)).T
    for _ in range(rounds):
        power *= (wanted @ filters.T) / np.maximum(power @ filters @ filters.T, 1e-20)
    spectra: Array = np.sqrt(power)
    return spectra


def griffin_lim(spectra: Array, seed: int = 0, rounds: int = 60, momentum: float = 0.99) -> Array:
    """Samples whose spectrogram approximates the magnitudes `spectra` (T, 513): (T * 441,).

    Griffin and Lim 1984, with the momentum of Perraudin, Balazs and Sondergaard 2013.
    """
    transform, length = _transform(), len(spectra) * HOP
    first, last = transform.p_min, transform.p_max(length)
    target = np.take(spectra, np.clip(np.arange(first, last), 0, len(spectra) - 1), axis=0).T
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(target.shape))
    previous: NDArray[np.complex128] = np.zeros_like(phases)
    for _ in range(rounds):
        rebuilt = transform.stft(transform.istft(target * phases, k1=length))
        moved = rebuilt + momentum * (rebuilt - previous)
        phases, previous = moved / np.maximum(np.abs(moved), 1e-12), rebuilt
    samples: Array = np.real(transform.istft(target * phases, k1=length))
    return samples


def speech_of(codes: NDArray[np.int64], codebook: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples at 22,050 Hz for codes (T,): (T * 882,)."""
    frames = codebook[codes].astype(np.float64).reshape(-1, MEL_BANDS)
    samples = griffin_lim(magnitudes(frames)) * 32_768.0
    clipped: NDArray[np.int16] = np.clip(np.round(samples), -32_768, 32_767).astype(np.int16)
    return clipped


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write 16-bit samples of one channel, the whole file or nothing. Raises OutputError if that fails."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    write_whole(path, content.getvalue())
