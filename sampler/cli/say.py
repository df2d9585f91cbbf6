"""The command `sampler say`: Finch speaks into a WAV file."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sampler import finch
from sampler.config import SamplingConfig
from sampler.errors import SilenceError
from sampler.results.report.console import plain_console

LONGEST = 2_000
"""Tokens after which a run is cut: 80 seconds."""


def say(
    text: Annotated[str, typer.Argument(help="What to say, at most 1,024 characters.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The WAV file.")],
    language: Annotated[str, typer.Option("--language", help="Language of the text: en, de, fr, es or it.")] = "en",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the most likely token.")] = 0.8,
) -> int:
    """Let the embedded model speak: 16-bit WAV, 22,050 Hz."""
    from sampler.finch import audio
    from sampler.generation.generator import Generator
    from sampler.requests import Request

    config = SamplingConfig(temperature=temperature)
    request = Request(text, config, seed, LONGEST, language=language)
    (run,) = Generator(finch.load(), width=1).generate([request])
    ended = run.stop_reason == "eos"
    codes = np.array(run.tokens[:-1] if ended else run.tokens, dtype=np.int64)
    if not codes.size:
        raise SilenceError(f"{text!r} ended before the first token of speech", hint="give another seed or more words")
    audio.write_wav(out, audio.speech_of(codes, audio.load_codebook(finch.folder())))
    how = "ended by itself" if ended else f"cut at {LONGEST:,} tokens"
    console = plain_console()
    console.print(f"{len(codes)} tokens, {len(codes) / 25:.1f} s, {how}: written to {out}")
    return 0
