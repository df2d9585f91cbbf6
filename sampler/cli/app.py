"""The command line: one file a command, one line here."""

from typing import Annotated

import typer

from sampler.cli.check import check
from sampler.cli.errors import shows_errors
from sampler.cli.info import doctor, list_
from sampler.cli.plan import plan
from sampler.cli.replay import replay
from sampler.cli.report import report
from sampler.cli.run import run
from sampler.cli.say import say
from sampler.cli.tokens import tokens
from sampler.cli.trace import trace
from sampler.cli.weights import weights
from sampler.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(f"sampler {__version__}")
        raise typer.Exit


@app.callback()
def sampler(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Stochastic-sampling and long-form regression checks for autoregressive token generators."""


app.command(epilog="Example: `sampler run stochastic --seed 7 --out runs/seven`")(shows_errors(run))
app.command(epilog="Example: `sampler replay smoke/temperature:0.8+cfg_weight:0.5/allowed --seed 0`")(
    shows_errors(replay)
)
app.command(epilog="Example: `sampler check mlx-lm --level process --json report.json`")(shows_errors(check))
app.command(epilog="Example: `sampler report runs/stochastic`")(shows_errors(report))
app.add_typer(trace, name="trace")
app.add_typer(weights, name="weights")
app.add_typer(tokens, name="tokens")
app.command(epilog="Example: `sampler plan stochastic`, or `sampler plan --texts 16 --runs 20`")(shows_errors(plan))
app.command(epilog='Example: `sampler say "Come and see." -o see.wav`')(shows_errors(say))
app.command("list", epilog="Example: `sampler list smoke`")(shows_errors(list_))
app.command(epilog="Example: `sampler doctor`")(shows_errors(doctor))


def main() -> None:
    """Entry point of the `sampler` command."""
    app()
