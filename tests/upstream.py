"""Upstream's own T3 (chatterbox-tts, PyTorch) as the oracle: imported, never copied.

The release is the installed one, 0.1.7, unless a process calls `use` first with the folder of another
(`tests/wheels.py`).

The package's `__init__` files import audio libraries, so they are bypassed: empty modules with the package's path
stand in their place. Constants that upstream hard-codes are patched for Finch, and nothing else is:

- `LLAMA_CONFIGS` gains an entry with the sizes of Finch or of a test (upstream knows 520M and GPT-2 medium only), with
  `eager` attention, which upstream's own analyzer sets as well, and float32, what upstream's loaders give;
- `Perceiver()` in `cond_enc.py` is called with its number of queries, width and heads (32, 1,024 and 4 there);
- the fields of `T3Config` that upstream sets in its class: number of text ids, start and stop of text and speech, the
  sizes of the speech table and of both position tables, and for GPT-2 the four that `tts_turbo.py` sets.
"""

import functools
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch

from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config

VERSION = "0.1.7"
PACKAGES = (
    *("chatterbox", "chatterbox.models", "chatterbox.models.t3", "chatterbox.models.t3.modules"),
    *("chatterbox.models.t3.inference", "chatterbox.models.tokenizers"),
)


def module(name: str) -> Any:
    if "chatterbox" not in sys.modules:
        _bypass_packages()
    return importlib.import_module(name)


@functools.cache
def _bypass_packages() -> None:
    specification = importlib.util.find_spec("chatterbox")
    if specification is None or importlib.metadata.version("chatterbox-tts") != VERSION:
        raise RuntimeError(f"needs: pip install --no-deps chatterbox-tts=={VERSION}")
    use(Path(next(iter(specification.submodule_search_locations or []))))


def use(root: Path) -> None:
    """Take upstream's modules from a folder `chatterbox`; a process can use one release."""
    for package in PACKAGES:
        empty = types.ModuleType(package)
        empty.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
        sys.modules[package] = empty


def build(
    config: T3Config, tensors: Mapping[str, mx.array], attention: str = "eager", dtype: torch.dtype = torch.float32
) -> Any:
    """Upstream's T3 with the given weights, in evaluation mode; cast as a whole where the type is not float32."""
    gpt2 = config.backbone == "gpt2"
    with torch.device("meta" if gpt2 else "cpu"):  # GPT-2 has nothing beside its state dict, so nothing need be drawn
        network = make(config, attention)
    assert not gpt2 or not list(network.buffers())
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, assign=gpt2)
    if gpt2:
        del network.tfmr.wte  # as `ChatterboxTurboTTS.from_local` does
    return network.to(dtype).eval()


def make(config: T3Config, attention: str = "eager") -> Any:
    """Upstream's T3 of this size, with weights as its constructor draws them."""
    sizes = module("chatterbox.models.t3.llama_configs")
    sizes.LLAMA_CONFIGS[config.name] = (_gpt2_sizes if config.backbone == "gpt2" else _llama_sizes)(sizes, config) | {
        "attn_implementation": attention
    }
    encoder = module("chatterbox.models.t3.modules.cond_enc")
    perceiver = module("chatterbox.models.t3.modules.perceiver").Perceiver
    encoder.Perceiver = functools.partial(
        perceiver, config.perceiver_queries, config.hidden_size, config.hidden_size, config.perceiver_heads
    )
    settings = module("chatterbox.models.t3.modules.t3_config").T3Config()
    settings.llama_config_name, settings.text_tokens_dict_size = config.name, config.text_vocab_size
    settings.start_text_token, settings.stop_text_token = config.start_text_id, config.stop_text_id
    settings.start_speech_token, settings.stop_speech_token = config.bos_id, config.eos_id
    settings.speech_tokens_dict_size = config.speech_vocab_size
    settings.max_text_tokens, settings.max_speech_tokens = config.max_text_tokens, config.max_speech_tokens
    if config.backbone == "gpt2":  # as `ChatterboxTurboTTS.from_local` sets them
        settings.input_pos_emb = None
        settings.speech_cond_prompt_len = config.prompt_length
        settings.use_perceiver_resampler = settings.emotion_adv = False
    return module("chatterbox.models.t3.t3").T3(settings)


def _llama_sizes(sizes: Any, config: T3Config) -> dict[str, Any]:
    return sizes.LLAMA_520M_CONFIG_DICT | {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.head_size,
        "torch_dtype": "float32",
    }


def _gpt2_sizes(sizes: Any, config: T3Config) -> dict[str, Any]:
    return (
        sizes.GPT2_MEDIUM_CONFIG
        | dict.fromkeys(("hidden_size", "n_embd"), config.hidden_size)
        | dict.fromkeys(("n_positions", "n_ctx"), config.positions)
        | {"n_inner": config.intermediate_size, "n_layer": config.num_layers, "n_head": config.num_heads}
        | {"vocab_size": config.text_vocab_size}
    )


def conditions(voice: Voice) -> Any:
    return module("chatterbox.models.t3.modules.cond_enc").T3Cond(
        speaker_emb=torch.from_numpy(voice.speaker)[None],
        cond_prompt_speech_tokens=torch.from_numpy(voice.prompt)[None],
        emotion_adv=voice.emotion * torch.ones(1, 1, 1),
    )
