"""The network that Finch is trained with computes what the core computes with the trained weights."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import log_softmax

from sampler.finch.training import fitting
from sampler.finch.training.backbone import run_layers
from sampler.finch.training.batches import Batches, Recipe
from sampler.finch.training.corpus import Corpus, Utterance
from sampler.finch.training.fitting import fit
from sampler.finch.training.network import T3Network
from sampler.finch.training.vocabulary import build_tokenizer
from sampler.t3.conditioning import Voice
from sampler.t3.model import T3
from sampler.t3.weights import read_weights
from tests.support import TINY

TOKENIZER = build_tokenizer(("en",))
START, STOP = (TOKENIZER.token_to_id(name) for name in ("[START]", "[STOP]"))
CONFIG = replace(TINY, text_vocab_size=TOKENIZER.get_vocab_size(), start_text_id=START, stop_text_id=STOP)
LENGTHS = (31, 20, 45, 27)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = np.random.default_rng(3)
    texts = ("one two.", "a far longer text than the others!", "x", "what is it?")
    items = [Utterance(text, "en", "en", index % 2, 0.3 + index / 10, index) for index, text in enumerate(texts)]
    positions = [np.linspace(0, len(text) - 1, length) for text, length in zip(texts, LENGTHS, strict=True)]
    return Corpus(
        utterances=items,
        codes=rng.integers(0, CONFIG.bos_id, sum(LENGTHS)).astype(np.uint16),
        positions=np.concatenate(positions).astype(np.float32),
        starts=np.concatenate([[0], np.cumsum(LENGTHS)]),
    )


@pytest.fixture(scope="module")
def network() -> T3Network:
    torch.manual_seed(4)
    return T3Network(CONFIG).eval()


@pytest.fixture(scope="module")
def core(network, tmp_path_factory) -> T3:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file({name: value for name, value in network.state_dict().items() if "rotary" not in name}, path)
    return T3(read_weights(path, CONFIG), CONFIG)


@pytest.mark.parametrize("single_bos", [0.0, 1.0])
@pytest.mark.parametrize("blank_text", [0.0, 1.0])
def test_the_loss_of_a_packed_batch_is_the_log_loss_of_the_core(corpus, network, core, single_bos, blank_text):
    recipe = Recipe(rows_per_batch=1_000, shards=1, blank_text=blank_text, single_bos=single_bos, wrong_token=0.0)
    (batch,) = next(batches(corpus, recipe).from_step(0))
    assert len(batch.text) == len(LENGTHS)
    with torch.no_grad():
        loss = network(batch).speech.item()
    losses = []
    for row in range(len(batch.text)):
        targets = batch.targets[row][batch.targets[row] >= 0].numpy()
        voice = Voice(batch.speakers[row].numpy(), batch.prompts[row].numpy(), batch.emotions[row].item())
        text = batch.text[row, : batch.text_lengths[row]].tolist()
        logits = core.teacher_forced(text, voice, targets[:-1].tolist(), bos_count=1 if single_bos else 2)
        scores = log_softmax(np.array(logits[int(blank_text)], dtype=np.float64), axis=-1)
        losses.append(-scores[np.arange(len(targets)), targets])
    assert targets[-1] == CONFIG.eos_id
    assert loss == pytest.approx(np.concatenate(losses).mean(), abs=2e-5)


def test_a_batch_of_blank_texts_has_losses(corpus, network):
    (batch,) = next(batches(corpus, Recipe(rows_per_batch=1_000, shards=1, blank_text=1.0)).from_step(0))
    losses = network(batch)
    assert (losses.text.item(), losses.alignment.item()) == (0.0, 0.0)
    torch.autograd.backward(losses.speech + losses.text + losses.alignment)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    network.zero_grad()


def test_the_layers_are_those_of_the_library(network):
    keep = frozenset(layer for layer, _ in CONFIG.aligned_heads)
    packed = torch.randn(2, 600, CONFIG.hidden_size, generator=torch.Generator().manual_seed(6))
    network.tfmr.config._attn_implementation = "eager"
    with torch.no_grad():
        theirs = network.tfmr(inputs_embeds=packed, use_cache=False, output_attentions=True)
        hidden, heads = run_layers(network.tfmr, packed, keep)
        torch.testing.assert_close(hidden, theirs.last_hidden_state, rtol=1e-5, atol=2e-5)
        for layer, head in CONFIG.aligned_heads:
            rows = heads[layer].attention_rows(head, torch.arange(200, 400).expand(2, -1))
            torch.testing.assert_close(rows, theirs.attentions[layer][:, head, 200:400], rtol=1e-4, atol=1e-6)


def test_the_gradients_are_those_of_the_library(network):
    """Masked scores are written in place: the gradient must not notice."""
    packed, direction = torch.randn(2, 1, 300, CONFIG.hidden_size, generator=torch.Generator().manual_seed(7))
    theirs = network.tfmr(inputs_embeds=packed, use_cache=False).last_hidden_state
    gradients = []
    for hidden in (theirs, run_layers(network.tfmr, packed)[0]):
        network.zero_grad()
        torch.autograd.backward((hidden * direction).sum())
        gradients.append([parameter.grad.clone() for parameter in network.tfmr.layers.parameters()])
    network.zero_grad()
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def train(corpus, folder, recipe, seed: int = 8, stop: int | None = None) -> T3Network:
    def bar(done: int, note: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    network = T3Network(CONFIG)
    fit(network, batches(corpus, recipe), recipe, folder / "training.pt", folder / "training.jsonl", bar)
    return network


def batches(corpus, recipe) -> Batches:
    codebook = np.random.default_rng(5).normal(size=(CONFIG.bos_id, 80)).astype(np.float32)
    return Batches(corpus, TOKENIZER, CONFIG, codebook, recipe)


def test_an_interrupted_training_goes_on_to_the_same_weights(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "KEPT_EVERY", 2)
    recipe = Recipe(steps=9, warmup=3, rows_per_batch=300, short_rows=57, short_steps=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(corpus, parts, recipe, stop=5)
    assert torch.load(parts / "training.pt", weights_only=True)["step"] == 4
    networks = [train(corpus, whole, recipe), train(corpus, parts, recipe, seed=9)]
    log = (whole / "training.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == list(range(9))
    assert log == (parts / "training.jsonl").read_text()
    assert_same(*networks)


def assert_same(one: T3Network, other: T3Network):
    values = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, values[name], atol=0, rtol=0, msg=name)


def test_a_finished_training_is_not_done_again(corpus, tmp_path):
    recipe = Recipe(steps=1, warmup=1, rows_per_batch=300)
    first = train(corpus, tmp_path, recipe)
    before = (tmp_path / "training.pt").stat().st_mtime_ns, (tmp_path / "training.jsonl").read_text()
    assert_same(first, train(corpus, tmp_path, recipe, seed=9))
    assert ((tmp_path / "training.pt").stat().st_mtime_ns, (tmp_path / "training.jsonl").read_text()) == before


def test_short_texts_come_first(corpus):
    recipe = Recipe(steps=40, rows_per_batch=300, short_rows=57, short_steps=20)
    made = batches(corpus, recipe)
    steps = list(itertools.islice(made.from_step(0), 40))
    longest = [max(int((b.text_lengths + b.speech_lengths).max()) for b in shards) for shards in steps]
    assert max(longest[:20]) + CONFIG.conditioning_length <= 57 < max(longest[20:]) + CONFIG.conditioning_length
    later = next(made.from_step(30))
    assert all(torch.equal(a.speech, b.speech) for a, b in zip(later, steps[30], strict=True))
