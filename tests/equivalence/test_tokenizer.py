"""Text to ids against upstream's own text front ends, on Finch's tokenizer and on one of the English kind."""

import functools
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from sampler import finch
from sampler.errors import TextError, WeightsError
from sampler.t3.config import CHATTERBOX_ENGLISH
from sampler.t3.tokenizer import TextTokenizer, normalize_punctuation
from tests import upstream

LETTERS = "abcXYZ .,!?:;-'\"()0123456789\u2026\u2014\u2013\u201c\u201d\u2018\u2019\u00e9\u00fc\u00df"
checkpoint = pytest.fixture(finch.load, scope="module")
TEXTS = st.text(alphabet=st.sampled_from(LETTERS), max_size=60).filter(lambda text: text.strip())


@functools.cache
def upstream_function(module: str, name: str):
    """One function of an upstream module whose imports (audio libraries) are not there: run its source alone."""
    source = Path(inspect.getfile(upstream.module("chatterbox.models.t3.t3"))).parents[2] / f"{module}.py"
    text = source.read_text(encoding="utf-8")
    start = text.index(f"def {name}(")
    namespace: dict[str, object] = {}
    exec(text[start : text.index("\n\n\n", start)], namespace)  # the oracle's own code, unchanged
    return namespace[name]


@given(TEXTS)
def test_punctuation_as_upstreams_three_programs_have_it(text):
    for module, front_end in (("tts", "english"), ("mtl_tts", "multilingual"), ("tts_turbo", "turbo")):
        assert normalize_punctuation(text, front_end) == upstream_function(module, "punc_norm")(text)


@given(TEXTS, st.sampled_from(["en", "de", "fr", "es", "it"]))
def test_ids_of_the_multilingual_front_end(checkpoint, text, language):
    module = upstream.module("chatterbox.models.tokenizers.tokenizer")
    theirs = module.MTLTokenizer.__new__(module.MTLTokenizer)  # its constructor downloads Cangjie codes
    theirs.tokenizer = Tokenizer.from_file(str(finch.folder() / "tokenizer.json"))
    normal = upstream_function("mtl_tts", "punc_norm")(text)
    config = checkpoint.config
    expected = [config.start_text_id, *theirs.encode(normal, language_id=language), config.stop_text_id]
    assert checkpoint.tokenizer.encode(text, language) == expected


@pytest.fixture(scope="module")
def english(tmp_path_factory) -> Path:
    """A tokenizer of upstream's English kind: 704 ids, [STOP] 0, [START] 255, byte-pair merges, cased."""
    special = {0: "[STOP]", 1: "[UNK]", 2: "[SPACE]", 255: "[START]"}
    letters = [chr(code) for code in range(33, 127)]
    pairs = [first + second for first in "abcdefghij" for second in "abcdefghijklmnopqrstuvwxyz"]
    rest = iter([*letters, *pairs, *(f"\ue000{index}" for index in range(700))])
    names = [special.get(index) or next(rest) for index in range(704)]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [(pair[0], pair[1]) for pair in pairs if pair in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special.values()])
    path = tmp_path_factory.mktemp("english") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@given(text=TEXTS)
def test_ids_of_the_english_front_end(english, text):
    theirs = upstream.module("chatterbox.models.tokenizers.tokenizer").EnTokenizer(str(english))
    expected = [255, *theirs.encode(upstream_function("tts", "punc_norm")(text)), 0]
    assert TextTokenizer(english, CHATTERBOX_ENGLISH).encode(text) == expected


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("", "en", "the text '' is empty (give at least one word)"),
        ("  \n ", "en", "the text '  \\n ' is empty"),
        ("Hej.", "sv", "finch does not speak 'sv' (languages: en, de, fr, es, it)"),
        ("so long " * 200, "en", "the text has 1601 tokens (finch takes 1024; split the text)"),
    ],
)
def test_texts_that_cannot_be_spoken(checkpoint, text, language, expected):
    with pytest.raises(TextError) as error:
        checkpoint.tokenizer.encode(text, language)
    assert str(error.value).startswith(expected)


def test_languages_that_upstream_rewrites_with_other_packages(english):
    config = SimpleNamespace(**{**vars(CHATTERBOX_ENGLISH), "tokenizer": "multilingual", "languages": ("ja", "ko")})
    tokenizer = TextTokenizer(english, config)
    with pytest.raises(TextError, match="text in 'ja' needs pykakasi"):
        tokenizer.encode("a", "ja")
    assert tokenizer._multilingual("\ud55c", "ko") == "[ko]\u1112\u1161\u11ab"


def test_a_tokenizer_of_another_size_is_refused(english, checkpoint, tmp_path):
    broken, rows = tmp_path / "tokenizer.json", checkpoint.config.text_vocab_size
    broken.write_text("{", encoding="utf-8")
    different = r"\(tokenizer and weights are of different versions\)"
    for path, message in (
        (english, rf"^tokenizer.json has 704 ids up to 703, text_emb has {rows} rows {different}$"),
        (broken, r"tokenizer.json, line 1 is no JSON"),
        (tmp_path / "none.json", r"does not exist \(the tokenizer belongs beside the weights\)"),
    ):
        with pytest.raises(WeightsError, match=message):
            TextTokenizer(path, checkpoint.config)
