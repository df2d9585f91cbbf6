"""Token-DiFR (arXiv 2511.20621), with the margin of its own package `token-difr`: needs the seed of the noise.

The margin of a token is by how much the reference's winner, with the same noise, lies above it, in logits. Its mean
over all tokens is compared with that of a right engine.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from sampler.chain.noise import gumbel_rows
from tests.duel.nulls import Null
from tests.duel.tokens import Judged

MOST = 0.5
"""The largest margin that counts; that of a token which the reference removes. As in the paper's own code."""


@cache
def package() -> ModuleType:
    """`token_difr.common`. Importing the whole package would need clients of inference servers."""
    found = importlib.util.find_spec("token_difr")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("needs: pip install --no-deps token-difr==0.1.2", name="token_difr")
    spec = importlib.util.spec_from_file_location("token_difr_common", Path(found.origin).parent / "common.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def rejects_after(runs: Sequence[Judged], nulls: Mapping[str, Null]) -> dict[str, int | None]:
    """How many tokens of the runs are enough beside each null distribution."""
    values, found = np.zeros(0), dict.fromkeys(nulls)
    for run in runs:
        values = np.concatenate([values, margins(run)])
        found |= {name: nulls[name].rejects_after(values) for name, tokens in found.items() if tokens is None}
        if None not in found.values():
            break
    return found


def margins(judged: Judged) -> np.ndarray:
    """Of each token of a run: (T,)."""
    found = [np.zeros(0)]
    for bounded in judged.bounded:
        steps, scores, temperature = bounded.steps, bounded.final.scores, judged.row.config.temperature
        noise = gumbel_rows([judged.key] * len(steps), steps.context.step.tolist(), scores.shape[1])
        margin = package()._compute_margin_batch(
            logits_JV=torch.from_numpy(np.where(np.isfinite(scores), scores * temperature, 0.0)),
            random_exponentials_JV=torch.from_numpy(np.exp(-noise.astype(np.float64))),
            neg_inf_mask_JV=torch.from_numpy(~np.isfinite(scores)),
            temperature=temperature,
            gold_idx_J=torch.from_numpy(steps.tokens),
        )
        found.append(np.minimum(margin.numpy(), MOST))
    return np.concatenate(found)
