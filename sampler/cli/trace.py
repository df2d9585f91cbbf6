"""The commands `sampler trace ...`: the inside of one run."""

from pathlib import Path
from typing import Annotated

import typer

from sampler.cli.errors import shows_errors
from sampler.config import SamplingConfig
from sampler.results.report.console import plain_console

trace = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look into one run.")
DEFAULT = SamplingConfig()


@trace.callback()
def group() -> None:
    """Show the inside of one run, such as what the model attended to."""


@trace.command(epilog='Example: `sampler trace attention "The harbour is quiet tonight." --out harbour.png`')
@shows_errors
def attention(
    text: Annotated[str, typer.Argument(help="The text to speak.")],
    out: Annotated[Path, typer.Option("--out", help="The picture: a .png or .svg file.")],
    language: Annotated[str, typer.Option("--language", help="Language of the text.")] = "en",
    engine: Annotated[
        str | None, typer.Option("--engine", help="Engine: core, `package.module:factory` or `file.py:factory`.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Folder with upstream's own files, or the weights file in it.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the run.")] = 0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="The most tokens to draw.")] = 1000,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = DEFAULT.temperature,
    top_k: Annotated[int, typer.Option("--top-k", help="0 is off.")] = DEFAULT.top_k,
    top_p: Annotated[float, typer.Option("--top-p", help="1 is off.")] = DEFAULT.top_p,
    min_p: Annotated[float, typer.Option("--min-p", help="0 is off.")] = DEFAULT.min_p,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="1 is off.")
    ] = DEFAULT.repetition_penalty,
    cfg_weight: Annotated[float, typer.Option("--cfg-weight", help="0 is off.")] = DEFAULT.cfg_weight,
) -> int:
    """Draw where in its text the model was at each step, with the tokens and the analyzer's flags."""
    from sampler.results.report.figures import picture_file
    from sampler.results.report.plots import attention_map
    from sampler.trace.attention import load, suite_request, trace_attention

    config = SamplingConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, cfg_weight=cfg_weight,
    )  # fmt: skip
    console = plain_console()
    with picture_file(out) as write:
        source = load(engine, weights)
        found = trace_attention(source, suite_request(source, text, config, seed, max_new_tokens, language))
        write(attention_map(found.attention, found.tokens, found.stop_reason, found.pieces, found.flags))
    flags = sum(map(bool, found.flags))
    console.print(
        f"{len(found.tokens)} tokens over {found.attention.shape[1]} pieces of text, stopped by {found.stop_reason}"
        + (f", flags at {flags} steps" if flags else "")
    )
    console.print(f"written to {out}")
    return 0
