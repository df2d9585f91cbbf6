"""Faults of a voice that torch has pickled."""

import io
import random

import torch

from tests.tools.fuzzing.mutations import Spoiled


def pickled_changed(content: bytes, rng: random.Random) -> Spoiled:
    """A value of another kind, type or size; or a program in place of data."""
    data = torch.load(io.BytesIO(content), weights_only=True)
    values = {
        "a text": "x" * 256,
        "256 texts": ["x"] * 256,
        "nothing": None,
        "a number": 3,
        "bools": torch.ones(1, 256, dtype=torch.bool),
        "complex numbers": torch.ones(1, 256, dtype=torch.complex64),
        "half precision": torch.ones(1, 256, dtype=torch.bfloat16),
        "10^10 views of one": torch.ones(1).expand(100_000, 100_000),
        "none": torch.zeros(0),
        "sparse": torch.eye(4).to_sparse(),
        "a gradient": torch.ones(1, 256, requires_grad=True),
        "NaN": torch.full((1, 256), torch.nan),
        "1e300": torch.full((1, 256), 1e300, dtype=torch.float64),
        "large ids": torch.full((1, 5), 2**62),
        "negative ids": torch.full((1, 5), -1),
        "an object": {"a": 1},
    }
    label = rng.choice([*values, "missing", "a list", "a program", "no t3"])
    name = rng.choice(["speaker_emb", "cond_prompt_speech_tokens", "emotion_adv"])
    if label == "missing":
        del data["t3"][name]
    elif label == "a list":
        data["t3"] = list(data["t3"].values())
    elif label == "no t3":
        del data["t3"]
    elif label == "a program":
        data["t3"][name] = Spoiled(b"", "x")
    else:
        data["t3"][name] = values[label]
    file = io.BytesIO()
    torch.save(data, file)
    return Spoiled(file.getvalue(), f"{name}: {label}", refused=label in ("a list", "a program", "no t3"))
