"""Rebuild Finch from scratch: `python -m sampler.finch.train --out DIR`.

Needs the extra `finch` of the package. Codebook, corpora and, every 250 steps, the training state are stored in
DIR/work; their names depend on their inputs. After an interruption the same command resumes there, with the same
result.
"""

import hashlib
import importlib.metadata
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sampler.errors import SamplerError
from sampler.finch import folder
from sampler.finch.training import card, corpus
from sampler.finch.training.batches import Batches, Recipe, finch_config
from sampler.finch.training.corpus import Corpus, Plan
from sampler.finch.training.fitting import fit
from sampler.finch.training.network import T3Network
from sampler.finch.training.publish import publish, wanted
from sampler.finch.training.sentences import Grammar
from sampler.finch.training.vocabulary import build_tokenizer


def main(
    out: Annotated[Path, typer.Option(help="Folder for Finch's files; intermediate results go to OUT/work.")],
    languages: Annotated[list[str] | None, typer.Option("--language", help="Languages, each with a grammar.")] = None,
    texts: Annotated[int, typer.Option(help="Utterances to train on.")] = Plan.texts,
    most_sentences: Annotated[int, typer.Option(help="Sentences joined in the longest text.")] = Plan.most_sentences,
    steps: Annotated[int, typer.Option(help="Training steps.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(help="Seed of texts, voices, initial weights and batches.")] = Plan.seed,
) -> None:
    """Create corpus, model and model card."""
    plan = replace(
        Plan(), languages=tuple(languages or Plan.languages), texts=texts, most_sentences=most_sentences, seed=seed
    )
    try:
        rebuild(out, plan, replace(Recipe(), steps=steps, seed=seed))
    except (SamplerError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def rebuild(out: Path, plan: Plan, recipe: Recipe) -> None:
    """Create corpus, model and model card in `out`, and intermediate files in `out/work`."""
    for language in plan.languages:
        Grammar.load(language)  # fails before any work if a grammar is missing
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    with _progress() as stage:
        codebook = _codebook(plan, work, stage)
        held_out, data = _corpora(plan, codebook, work, stage)
        tokenizer = build_tokenizer(plan.languages)
        config = finch_config(plan, tokenizer)
        torch.manual_seed(recipe.seed)
        network = T3Network(config)
        checkpoint = _kept(work, "training", (plan, wanted(), recipe), ".pt", MADE_BY + TRAINED_BY)
        log = checkpoint.with_suffix(".jsonl")
        batches = Batches(data, tokenizer, config, codebook, recipe)
        fit(network, batches, recipe, checkpoint, log, stage("training", recipe.steps))
    publish(out, network.state_dict(), config, tokenizer, codebook, data, held_out)
    card.write_card(out, plan, recipe, data, _mean_losses(log))


Stage = Callable[[str, int], Callable[[int, str], None]]


@contextmanager
def _progress() -> Iterator[Stage]:
    """A function that opens a progress bar: takes name and total, returns a function (done, note)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns) as progress:

        def open_bar(name: str, total: int) -> Callable[[int, str], None]:
            bar: TaskID = progress.add_task(name, total=total, note="")
            return lambda done, note: progress.update(bar, completed=done, note=note)

        yield open_bar


MADE_BY = ("training/corpus.py", "training/sentences.py", "training/speech.py", "languages/*.toml")
"""Sources of codebook and corpora, which are computed again after a change there."""

TRAINED_BY = tuple(f"training/{name}.py" for name in ("backbone", "batches", "fitting", "network", "vocabulary"))
"""Sources of the training, which starts again after a change there."""


def _kept(work: Path, name: str, made_of: object, suffix: str = ".npz", sources: tuple[str, ...] = MADE_BY) -> Path:
    """The path of a stored result; its name has a hash of its inputs, the program and its word lists included."""
    found = {pattern: sorted(folder().glob(pattern)) for pattern in sources}
    for pattern, paths in found.items():
        if not paths:  # a key without its sources would reuse results of another program
            raise FileNotFoundError(f"{folder() / pattern} has no file; the name of a kept result follows from it")
    files = [path.read_bytes() for paths in found.values() for path in paths]
    versions = [importlib.metadata.version(package) for package in ("espeakng-loader", "wonderwords")]
    key = hashlib.sha256(repr((made_of, versions)).encode() + b"".join(files))
    return work / f"{name}-{key.hexdigest()[:12]}{suffix}"


def _codebook(plan: Plan, work: Path, stage: Stage) -> NDArray[np.float32]:
    path = _kept(work, "codebook", replace(plan, texts=plan.texts_for_codes))
    if not path.exists():
        bar = stage("codebook", plan.texts_for_codes)
        corpus.save_arrays(path, codebook=corpus.learn_codebook(plan, lambda done: bar(done, "")))
    with np.load(path) as data:
        codebook: NDArray[np.float32] = data["codebook"]
        return codebook


def _corpora(plan: Plan, codebook: NDArray[np.float32], work: Path, stage: Stage) -> tuple[Corpus, Corpus]:
    """Held-out texts and training texts, spoken and coded."""
    items, sentences = corpus.held_out_utterances(plan, wanted())
    made_of = plan, wanted()
    paths = _kept(work, "held_out", made_of), _kept(work, "train", made_of)
    if not paths[0].exists():
        bar = stage("held-out speech", len(items))
        corpus.encode(items, codebook, lambda done: bar(done, "")).save(paths[0])
    if not paths[1].exists():
        bar = stage("speech", plan.texts)
        chosen = list(itertools.islice(corpus.utterances(plan, sentences), plan.texts))
        corpus.encode(chosen, codebook, lambda done: bar(done, "")).save(paths[1])
    return Corpus.load(paths[0]), Corpus.load(paths[1])


def _mean_losses(log: Path, last: int = 200) -> dict[str, float]:
    """Mean of each loss over the last steps."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[-last:]]
    return {name: float(np.mean([line[name] for line in lines])) for name in ("speech", "text", "alignment")}
