"""What is done to logs on their way: to all runs of a port alike."""

from dataclasses import replace
from functools import cache

from sampler.checks.longform.runs import TokenRun
from sampler.results.store.reference_runs import shipped_runs

VOICE = (7, 1955, 88, 1211, 4, 933, 512, 2040)
BOS, END, VOCABULARY = 2048, 2049, 2050


def bare(run):
    """A run without measures, with which tokens can be added."""
    return TokenRun(run.text, run.tokens, run.stop_reason)


def led(runs, *tokens):
    return [replace(run, tokens=(*tokens, *run.tokens)) for run in runs]


def filled(runs, token):
    longest = max(len(run.tokens) for run in runs)
    return [replace(run, tokens=run.tokens + (token,) * (longest - len(run.tokens))) for run in runs]


def filled_before(runs, token):
    longest = max(len(run.tokens) for run in runs)
    return [replace(run, tokens=(token,) * (longest - len(run.tokens)) + run.tokens) for run in runs]


def filled_to_blocks(runs, token, size):
    return [replace(run, tokens=run.tokens + (token,) * (-len(run.tokens) % size)) for run in runs]


def followed(runs, *tokens):
    return [replace(run, tokens=run.tokens + tokens) if run.ended else run for run in runs]


def stripped(runs, *ends):
    return [replace(run, tokens=(*run.tokens[:-1], *ends)) if run.ended else run for run in runs]


def shifted(runs, by, spared=()):
    return [replace(run, tokens=tuple(one if one in spared else one + by for one in run.tokens)) for run in runs]


def cut_off(runs):
    """Padded runs, whose logger looked at the last token for the stop reason."""
    return [replace(run, stop_reason="length") for run in filled(runs, 5)]


@cache
def recorded(cell):
    """Runs of upstream's code: some as the port's, the others as the reference."""
    runs = [run for run in map(bare, shipped_runs(f"sentences/{cell}")) if not {0, 1, 2} & set(run.tokens)]
    return runs[::2], runs[1::2]
