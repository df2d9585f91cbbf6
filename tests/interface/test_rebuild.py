"""`python -m sampler.finch.train` from nothing to a folder that runs, at a size of seconds."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sampler import SamplingConfig
from sampler.errors import ConfigError
from sampler.finch import audio, prompts_in
from sampler.finch.training import card, measure, publish, train
from sampler.finch.training.batches import Recipe
from sampler.finch.training.corpus import Plan
from sampler.finch.training.measure import held_out_speech, speak
from sampler.t3.checkpoint import load_checkpoint

pytestmark = pytest.mark.nightly("a corpus, a codebook and a network are made anew")

PLAN = replace(Plan(), languages=("en", "it"), texts=60, texts_for_codes=24, codes=64, most_sentences=2, voices=2)
RECIPE = replace(Recipe(), steps=3, warmup=1, rows_per_batch=600)
SMALL = {
    publish: {"SENTENCES": 6, "PARAGRAPHS": 3, "LONG": ((3, 200, 0),)},
    card: {"SENTENCES": 4, "TEXT_LOSSES": 4, "LONG_TEXTS": 2, "LONG_SEEDS": 2, "LONG_CAP": 40},
    measure: {"LONG_TOKENS": (20, 900)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for module, values in SMALL.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        out = tmp_path_factory.mktemp("finch")
        train.rebuild(out, PLAN, RECIPE)
        yield out


def test_the_folder_is_a_checkpoint_that_speaks_and_the_card_gives_its_figures(folder):
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.config.bos_id, checkpoint.config.eos_id) == (64, 65)
    (run,) = speak(checkpoint, prompts_in(folder, "sentences")[:1], SamplingConfig(), seed=0, width=1, cap=20)
    assert 0 < len(run.tokens) <= 20
    text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for expected in ("60 texts of 1 to 2 sentences", "3 of about 600 rows", "of 64, entropy", "GPL-3.0", " of 4 |"):
        assert expected in text
    assert "nan" not in text


def test_true_lengths_are_those_of_the_speech(folder):
    prompts = [prompt for group in ("sentences", "paragraphs", "long") for prompt in prompts_in(folder, group)]
    assert [prompt.id for prompt in prompts[5:7]] == ["en-sentence-005", "it-sentence-000"]
    assert sorted(prompt.index for prompt in prompts) == list(range(20))
    assert [len(codes) for codes in held_out_speech(folder, prompts)] == [prompt.tokens for prompt in prompts]
    for prompt in prompts:  # speech at 25 tokens a second takes 10 to 25 characters a second
        assert 1.0 < 25 * len(prompt.text) / prompt.tokens / 10 < 2.5


def test_the_same_seeds_give_the_same_weights(folder, tmp_path):
    """Corpus and codebook are kept and not made again; training anew ends where it ended."""
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "work").glob("*.npz")}
    first = (folder / "weights.safetensors").read_bytes()
    (checkpoint,) = (folder / "work").glob("training-*.pt")
    checkpoint.unlink()
    train.rebuild(folder, PLAN, RECIPE)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "work").glob("*.npz")} == before
    assert (folder / "weights.safetensors").read_bytes() == first


def test_what_was_made_of_something_else_is_not_taken(folder):
    of_codes = replace(PLAN, texts=PLAN.texts_for_codes)
    kept = train._kept(folder / "work", "codebook", of_codes)
    assert kept.exists()
    assert train._kept(folder / "work", "codebook", replace(of_codes, seed=2)) != kept
    trained = train._kept(folder / "work", "training", RECIPE, ".pt", train.TRAINED_BY)
    assert train._kept(folder / "work", "training", replace(RECIPE, seed=2), ".pt", train.TRAINED_BY) != trained


def test_too_few_texts_are_named(folder):
    """Six voices, six texts of one sentence: none is as long as a prompt."""
    with pytest.raises(ConfigError, match=r"voice \d has no utterance of 150 codes among 6 texts \(more texts, or"):
        train.rebuild(folder, replace(PLAN, voices=6, texts=6, most_sentences=1), RECIPE)


def test_a_language_without_a_grammar_is_one_line(tmp_path):
    command = [sys.executable, "-m", "sampler.finch.train", "--out", str(tmp_path / "x"), "--language", "tlh"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 2
    assert result.stderr.strip() == "error: there is no grammar for the language 'tlh' (known: de, en, es, fr, it)"
    assert not (tmp_path / "x").exists()


def test_the_codebook_ships(folder):
    codebook = audio.load_codebook(folder)
    assert codebook.shape == (64, 80)
    with np.load(train._kept(folder / "work", "codebook", replace(PLAN, texts=PLAN.texts_for_codes))) as data:
        # What rounding to float16 leaves: half a step, which below its normal numbers is 2^-25 whatever the value.
        np.testing.assert_allclose(codebook, data["codebook"], rtol=2**-11, atol=2**-25)
