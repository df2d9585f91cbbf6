"""The training loop: two optimisers, a batch's shards in threads, and a checkpoint to resume from."""

import functools
import io
import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sampler.finch.training.batches import Batches, Recipe
from sampler.finch.training.network import Batch, Losses, T3Network
from sampler.runtime.files import write_whole

Bar = Callable[[int, str], None]
KEPT_EVERY = 250


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, constant, then a linear decrease to a fiftieth; from `restart` on the same again."""
    first = step < recipe.restart
    start, end = (0, min(recipe.restart, recipe.steps)) if first else (recipe.restart, recipe.steps)
    highest = recipe.learning_rate if first else recipe.restart_rate
    if step - start < recipe.warmup:
        return highest * (step - start + 1) / recipe.warmup
    left = (end - step) / max(1.0, (end - start) * recipe.decay)
    return highest * max(0.02, min(1.0, left))


def optimizers(network: T3Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers (Jordan 2024; scaled as in Liu et al. 2025, arXiv:2502.16982), else AdamW."""
    layers: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (layers if name.startswith("tfmr.layers") and parameter.ndim == 2 else rest).append(parameter)
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    return [
        torch.optim.Muon(layers, adjust_lr_fn="match_rms_adamw", **settings),
        torch.optim.AdamW([parameter for parameter in rest if parameter.requires_grad], betas=(0.9, 0.95), **settings),
    ]


@dataclass
class Training:
    """Network and optimisers after `step` steps."""

    network: T3Network
    optimizers: list[torch.optim.Optimizer]
    recipe: Recipe
    step: int = 0

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_whole(path, content.getvalue())

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def advance(self, shards: tuple[Batch, ...], pool: ThreadPoolExecutor) -> dict[str, float]:
        """Take one step; return the losses by name, in nats."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.recipe)
        counts = [int((shard.targets >= 0).sum()) for shard in shards]
        weights = [count / sum(counts) for count in counts]
        answers = list(pool.map(self._gradients, shards, weights))
        losses = [loss for loss, _ in answers]
        for parameter, *parts in zip(self._trained, *(gradients for _, gradients in answers), strict=True):
            parameter.grad = functools.reduce(torch.add, parts)  # in the order of the shards, not of completion
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return {name: round(sum(getattr(loss, name).item() for loss in losses), 4) for name in vars(losses[0])}

    @functools.cached_property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _gradients(self, batch: Batch, weight: float) -> tuple[Losses, tuple[torch.Tensor, ...]]:
        """The losses of one shard, times its share of the batch, and the gradients of all trained parameters."""
        # Without the cache of cast weights: all threads share it, and whether a gradient is summed in bfloat16 (one
        # cast, used twice) or in float32 (two casts) would depend on which shard is ahead.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            losses: Losses = self.network(batch)
        parts = Losses(losses.speech * weight, losses.text * weight, losses.alignment * weight)
        recipe = self.recipe
        total = parts.speech + recipe.alignment_weight * parts.alignment + recipe.text_weight * parts.text
        gradients = torch.autograd.grad(total, self._trained, materialize_grads=True)
        return Losses(parts.speech.detach(), parts.text.detach(), parts.alignment.detach()), gradients


def fit(network: T3Network, batches: Batches, recipe: Recipe, checkpoint: Path, log: Path, bar: Bar) -> None:
    """Train in place, resuming from `checkpoint` if it exists: the result equals that of an uninterrupted training.

    log: a line of JSON for each step.
    """
    training = Training(network, optimizers(network, recipe), recipe)
    if checkpoint.exists():
        training.load(checkpoint)
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)[: training.step] if training.step else []
    log.write_text("".join(lines), encoding="utf-8")
    threads = max(1, torch.get_num_threads() // recipe.shards)
    with (
        log.open("a", encoding="utf-8") as file,
        ThreadPoolExecutor(recipe.shards, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
    ):
        for shards in itertools.islice(batches.from_step(training.step), recipe.steps - training.step):
            losses = training.advance(shards, pool)
            bar(training.step, " ".join(f"{name} {value:.2f}" for name, value in losses.items()))
            file.write(json.dumps({"step": training.step - 1, **losses}) + "\n")
            file.flush()
            if training.step % KEPT_EVERY == 0 or training.step == recipe.steps:
                training.save(checkpoint)
