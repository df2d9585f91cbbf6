"""What a folder of weights was recognised as, for people and as data."""

from pathlib import Path
from typing import Any

from sampler.t3.checkpoint import check_values, recognise
from sampler.t3.config import T3Config
from sampler.t3.folder import instead


def facts_of(path: Path) -> dict[str, Any]:
    """What is in a folder. Raises WeightsError or MissingPackage for what a run could not use; reads all weights."""
    found = recognise(path)
    check_values(found)
    config, layout, voice = found.config, found.layout, found.voice
    return {
        "kind": config.name,
        "backbone": backbone_of(config),
        "file": found.weights.name,
        "bytes": found.weights.stat().st_size,
        "other_files": list(found.chosen.others),
        "layout": str(layout),
        "prefix": layout.prefix,
        "dtypes": dict(found.dtypes),
        "config": "config.json" if found.has_config else "the known model's, as no config.json says another",
        "sizes": sizes_of(config),
        "tokenizer": {
            "file": found.tokenizer.path.name,
            "ids": found.tokenizer.size,
            "front_end": config.tokenizer,
            "languages": list(config.languages),
        },
        "voice": {
            "file": voice.path.name,
            "layout": voice.layout,
            "prompt_tokens": len(voice.voice.prompt),
            "emotion": voice.voice.emotion if config.backbone == "llama" else None,
        },
        "ignored": list(layout.ignored),
    }


def backbone_of(config: T3Config) -> dict[str, Any]:
    """The network of a config in numbers."""
    return {
        "name": config.backbone,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_heads,
    }


def sizes_of(config: T3Config) -> dict[str, int]:
    """Rows of the tables."""
    return {
        "text_ids": config.text_vocab_size,
        "speech_ids": config.speech_vocab_size,
        "text_positions": config.text_positions,
        "speech_positions": config.speech_positions,
    }


def lines_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The same facts as a name and a sentence each."""
    network, sizes, text, voice = (facts[name] for name in ("backbone", "sizes", "tokenizer", "voice"))
    backbone = "GPT-2" if network["name"] == "gpt2" else "Llama"
    shape = f"{backbone}, {network['layers']} layers, {network['hidden_size']:,} wide, {network['heads']} heads"
    emotion = "" if voice["emotion"] is None else f", emotion {voice['emotion']:g}"
    rows, languages = sizes["text_ids"] - text["ids"], ", ".join(text["languages"])
    spare = f" and {rows} rows without one" if rows else ""
    return [
        ("kind", f"{facts['kind']}: {shape}"),
        ("file", f"{facts['file']}, {facts['bytes']:,} bytes"),
        *([("choice", instead(facts["other_files"]))] if facts["other_files"] else []),
        ("layout", facts["layout"]),
        ("dtype", ", ".join(f"{name} ({count} tensors)" for name, count in facts["dtypes"].items())),
        ("config", facts["config"]),
        ("sizes", ", ".join(f"{size:,} {name.replace('_', ' ')}" for name, size in sizes.items())),
        ("tokenizer", f"{text['file']}, {text['ids']:,} ids{spare}, {text['front_end']}: {languages}"),
        ("voice", f"{voice['file']}, {voice['layout']}: {voice['prompt_tokens']} tokens{emotion}"),
        ("ignored", ", ".join(facts["ignored"]) or "nothing"),
    ]
