"""Sentences from a small grammar, so that Finch's training text is free of other people's rights."""

import itertools
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from sampler.errors import ConfigError
from sampler.t3.tokenizer import lower_nfkd

SLOT = re.compile(r"\{(\w+)\}")
FIRST_LETTER = re.compile(r"[^\W\d_]")
SHORTEST, LONGEST = 12, 130
LONGEST_TEXT = 1_000
"""Characters, decomposed (NFKD): with language token, start and stop they fit into Finch's 1,024 ids."""


@dataclass(frozen=True)
class Grammar:
    """The templates and word lists of one language (`languages/<code>.toml`)."""

    language: str
    espeak: str
    templates: tuple[str, ...]
    open_templates: tuple[str, ...]
    lists: dict[str, tuple[str, ...]]
    rules: tuple[tuple[str, str], ...]

    @classmethod
    def load(cls, language: str) -> "Grammar":
        """Read the grammar of `language`. Raises ConfigError if there is none."""
        source = Path(str(resources.files("sampler.finch"))) / "languages" / f"{language}.toml"
        if not source.is_file():
            known = sorted(file.name.removesuffix(".toml") for file in source.parent.iterdir())
            raise ConfigError(f"there is no grammar for the language {language!r}", hint=f"known: {', '.join(known)}")
        data = tomllib.loads(source.read_text(encoding="utf-8"))
        return cls(
            language=data["language"],
            espeak=data["espeak"],
            templates=tuple(data["templates"]),
            open_templates=tuple(data["open_templates"]),
            lists={name: tuple(words) for name, words in data["lists"].items()},
            rules=tuple((pattern, replacement) for pattern, replacement in data["rules"]),
        )

    def with_open_lists(self) -> "Grammar":
        """Add the available open word lists (English: package `wonderwords`, MIT, without its profanities)."""
        if self.language != "en":
            return self
        from wonderwords import RandomWord, filter_profanity

        words = RandomWord()
        lists = dict(self.lists)
        for name, category in (("noun", "noun"), ("adjective", "adjective"), ("verb", "verb")):
            known = filter_profanity(words.filter(include_categories=[category]))
            lists[f"any_{name}"] = tuple(sorted({word for word in known if word.isalpha() and word.islower()}))
        return replace(self, lists=lists)

    def fill(self, template: str, rng: random.Random) -> str:
        """Fill the slots of `template`, also those in inserted words; then apply rules and capitalise it."""
        sentence = template
        while SLOT.search(sentence):
            sentence = SLOT.sub(lambda slot: rng.choice(self.lists[slot[1]]), sentence)
        for pattern, replacement in self.rules:
            sentence = re.sub(pattern, replacement, sentence)
        return FIRST_LETTER.sub(lambda letter: letter[0].upper(), sentence, count=1)


def sentences(grammar: Grammar, seed: int, open_share: float = 0.0) -> Iterator[str]:
    """Yield sentences of 12 to 130 characters without end, the same ones for the same seed.

    open_share: the share of sentences from templates that use the open word lists (0 to 1).
    """
    rng = random.Random(f"{grammar.language}/{seed}")  # noqa: S311 - sentences, not secrets
    while True:
        wide = bool(grammar.open_templates) and rng.random() < open_share
        sentence = grammar.fill(rng.choice(grammar.open_templates if wide else grammar.templates), rng)
        if SHORTEST <= len(sentence) <= LONGEST:
            yield sentence


def joined(stream: Iterator[str], count: int, characters: int = LONGEST_TEXT) -> str:
    """Join the next sentences of `stream`: `count`, or fewer if they would exceed `characters`."""
    text = ""
    for sentence in itertools.islice(stream, count):
        longer = f"{text} {sentence}".strip()
        if text and len(lower_nfkd(longer)) > characters:
            break
        text = longer
    return text
