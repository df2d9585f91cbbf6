"""Rebuild Finch from nothing: `python -m sampler.finch.train --out DIR`.

Needs the extra `finch` of the package. On two cores: speaking and coding 7 minutes, training under an hour and a half,
measuring two minutes. Codebook and corpora are kept in DIR/work under a name that follows from what they were made of,
and are not made again; training always starts anew.
"""

import hashlib
import importlib.metadata
import itertools
import json
import math
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
from sampler.finch import card, corpus, folder
from sampler.finch.batches import Batches, Recipe, finch_config
from sampler.finch.corpus import Corpus, Plan
from sampler.finch.network import Batch, Losses, T3Network
from sampler.finch.publish import held_out_counts, publish
from sampler.finch.sentences import Grammar
from sampler.finch.vocabulary import build_tokenizer


def main(
    out: Annotated[Path, typer.Option(help="Folder for Finch's files; intermediate results go to OUT/work.")],
    languages: Annotated[list[str] | None, typer.Option("--language", help="Languages, each with a grammar.")] = None,
    texts: Annotated[int, typer.Option(help="Utterances to train on.")] = Plan.texts,
    most_sentences: Annotated[int, typer.Option(help="Sentences joined in the longest text.")] = Plan.most_sentences,
    steps: Annotated[int, typer.Option(help="Training steps.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(help="Seed of texts, voices, initial weights and batches.")] = Plan.seed,
) -> None:
    """Make corpus, model and model card."""
    plan = replace(
        Plan(), languages=tuple(languages or Plan.languages), texts=texts, most_sentences=most_sentences, seed=seed
    )
    try:
        rebuild(out, plan, replace(Recipe(), steps=steps, seed=seed))
    except (SamplerError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def rebuild(out: Path, plan: Plan, recipe: Recipe) -> None:
    """Make corpus, model and model card in `out`, and what lies between in `out/work`."""
    for language in plan.languages:
        Grammar.load(language)  # what is missing shows before anything is made
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    with _progress() as stage:
        codebook = _codebook(plan, work, stage)
        held_out, data = _corpora(plan, codebook, work, stage)
        tokenizer = build_tokenizer(plan.languages)
        config = finch_config(plan, tokenizer)
        torch.manual_seed(recipe.seed)
        network = T3Network(config)
        fit(network, Batches(data, tokenizer, config, codebook, recipe), recipe, work, stage)
    publish(out, network.state_dict(), config, tokenizer, codebook, data, held_out)
    card.write_card(out, plan, recipe, data, _mean_losses(work))


Stage = Callable[[str, int], Callable[[int, str], None]]


@contextmanager
def _progress() -> Iterator[Stage]:
    """A function that opens a progress bar: name and total in, a function (done, note) out."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns) as progress:

        def open_bar(name: str, total: int) -> Callable[[int, str], None]:
            bar: TaskID = progress.add_task(name, total=total, note="")
            return lambda done, note: progress.update(bar, completed=done, note=note)

        yield open_bar


def _kept(work: Path, name: str, made_of: object) -> Path:
    """Where a result is kept: its name says what it was made of, the program and its word lists included."""
    sources = [path.read_bytes() for path in sorted(folder().rglob("*")) if path.suffix in (".py", ".toml")]
    versions = [importlib.metadata.version(package) for package in ("espeakng-loader", "wonderwords")]
    key = hashlib.sha256(repr((made_of, versions)).encode() + b"".join(sources))
    return work / f"{name}-{key.hexdigest()[:12]}.npz"


def _codebook(plan: Plan, work: Path, stage: Stage) -> NDArray[np.float32]:
    path = _kept(work, "codebook", plan)
    if not path.exists():
        bar = stage("codebook", plan.texts_for_codes)
        corpus.save_arrays(path, codebook=corpus.learn_codebook(plan, lambda done: bar(done, "")))
    with np.load(path) as data:
        codebook: NDArray[np.float32] = data["codebook"]
        return codebook


def _corpora(plan: Plan, codebook: NDArray[np.float32], work: Path, stage: Stage) -> tuple[Corpus, Corpus]:
    """Held-out texts and training texts, spoken and coded."""
    items, sentences = corpus.held_out_utterances(plan, held_out_counts())
    made_of = plan, held_out_counts()
    paths = _kept(work, "held_out", made_of), _kept(work, "train", made_of)
    if not paths[0].exists():
        bar = stage("held-out speech", len(items))
        corpus.encode(items, codebook, lambda done: bar(done, "")).save(paths[0])
    if not paths[1].exists():
        bar = stage("speech", plan.texts)
        chosen = list(itertools.islice(corpus.utterances(plan, sentences), plan.texts))
        corpus.encode(chosen, codebook, lambda done: bar(done, "")).save(paths[1])
    return Corpus.load(paths[0]), Corpus.load(paths[1])


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def fit(network: T3Network, batches: Batches, recipe: Recipe, work: Path, stage: Stage) -> None:
    """Train in place; writes `losses.jsonl` and, every 500 steps and at the end, `network.pt`."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    bar = stage("training", recipe.steps)
    with (work / "losses.jsonl").open("w", encoding="utf-8") as log:
        for step, batch in enumerate(itertools.islice(batches, recipe.steps)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, recipe)
            losses = _train_step(network, batch, optimizer, recipe)
            values = {name: round(value.item(), 4) for name, value in vars(losses).items()}
            bar(step + 1, " ".join(f"{name} {value:.2f}" for name, value in values.items()))
            log.write(json.dumps({"step": step, **values}) + "\n")
            log.flush()
            if step % 500 == 499 or step == recipe.steps - 1:
                torch.save(network.state_dict(), work / "network.pt")


def _train_step(network: T3Network, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Losses:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses: Losses = network(batch)
    total = losses.speech + recipe.alignment_weight * losses.alignment + recipe.text_weight * losses.text
    torch.autograd.backward(total)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return losses


def _mean_losses(work: Path, last: int = 200) -> dict[str, float]:
    """Mean of each loss over the last steps."""
    lines = [json.loads(line) for line in (work / "losses.jsonl").read_text(encoding="utf-8").splitlines()[-last:]]
    return {name: float(np.mean([line[name] for line in lines])) for name in ("speech", "text", "alignment")}


if __name__ == "__main__":
    typer.run(main)
