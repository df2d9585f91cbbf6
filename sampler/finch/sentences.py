"""Sentences made by a small grammar, so that Finch's training text carries nobody's rights."""

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sampler.errors import ConfigError

SLOT = re.compile(r"\{(\w+)\}")
SHORTEST, LONGEST = 12, 90


@dataclass(frozen=True)
class Grammar:
    """The templates and word lists of one language (`languages/<code>.toml`)."""

    language: str
    espeak: str
    templates: tuple[str, ...]
    open_templates: tuple[str, ...]
    lists: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, language: str) -> "Grammar":
        """Read the grammar of `language`. Raises ConfigError where there is none."""
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
        )

    def with_open_lists(self) -> "Grammar":
        """Add the open word lists that there are (English: package `wonderwords`, MIT, without its profanities)."""
        if self.language != "en":
            return self
        from wonderwords import RandomWord, filter_profanity

        words = RandomWord()
        lists = dict(self.lists)
        for name, category in (("noun", "noun"), ("adjective", "adjective"), ("verb", "verb")):
            known = filter_profanity(words.filter(include_categories=[category]))
            lists[f"any_{name}"] = tuple(sorted({word for word in known if word.isalpha() and word.islower()}))
        lists["any_noun_first"] = tuple(word.capitalize() for word in lists["any_noun"])
        return Grammar(self.language, self.espeak, self.templates, self.open_templates, lists)


def sentences(grammar: Grammar, seed: int, open_share: float = 0.0) -> Iterator[str]:
    """Yield sentences of 12 to 90 characters for ever, the same ones for the same seed.

    open_share: the share made from templates that use the open word lists (0 to 1).
    """
    rng = random.Random(f"{grammar.language}/{seed}")  # noqa: S311 - sentences, not secrets
    while True:
        templates = grammar.open_templates if rng.random() < open_share else grammar.templates
        sentence = SLOT.sub(lambda slot: rng.choice(grammar.lists[slot[1]]), rng.choice(templates))
        sentence = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", sentence)
        if SHORTEST <= len(sentence) <= LONGEST:
            yield sentence
