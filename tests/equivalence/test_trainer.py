"""The network that Finch is trained with computes what the core computes with the trained weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import log_softmax

from sampler.finch.batches import Batches, Recipe
from sampler.finch.corpus import Corpus, Utterance
from sampler.finch.network import T3Network
from sampler.finch.vocabulary import build_tokenizer
from sampler.t3.conditioning import Voice
from sampler.t3.model import T3
from sampler.t3.weights import read_weights
from tests.support import TINY

TOKENIZER = build_tokenizer(("en",))
CONFIG = replace(
    TINY,
    text_vocab_size=TOKENIZER.get_vocab_size(),
    start_text_id=TOKENIZER.token_to_id("[START]"),
    stop_text_id=TOKENIZER.token_to_id("[STOP]"),
)
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
    """The MLX core with the network's weights, from a file as one that ships."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file({name: value for name, value in network.state_dict().items() if "rotary" not in name}, path)
    return T3(read_weights(path, CONFIG), CONFIG)


@pytest.mark.parametrize("single_bos", [0.0, 1.0])
@pytest.mark.parametrize("blank_text", [0.0, 1.0])
def test_the_loss_of_a_packed_batch_is_the_log_loss_of_the_core(corpus, network, core, single_bos, blank_text):
    """Four utterances of different lengths in one padded batch, against each by itself, teacher-forced."""
    recipe = Recipe(rows_per_batch=1_000, blank_text=blank_text, single_bos=single_bos, wrong_token=0.0)
    codebook = np.random.default_rng(5).normal(size=(CONFIG.bos_id, 80)).astype(np.float32)
    batch = next(iter(Batches(corpus, TOKENIZER, CONFIG, codebook, recipe)))
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
    """A small batch may have no text at all: then text and alignment say nothing, and nothing becomes NaN."""
    recipe = Recipe(rows_per_batch=1_000, blank_text=1.0)
    codebook = np.zeros((CONFIG.bos_id, 80), dtype=np.float32) + np.arange(CONFIG.bos_id)[:, None]
    losses = network(next(iter(Batches(corpus, TOKENIZER, CONFIG, codebook, recipe))))
    assert (losses.text.item(), losses.alignment.item()) == (0.0, 0.0)
    torch.autograd.backward(losses.speech + losses.text + losses.alignment)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    network.zero_grad()


def test_the_attention_that_is_trained_is_the_attention_that_is_recorded(corpus, network):
    """The rows behind the alignment loss are those of the backbone's own head."""
    recipe = Recipe(rows_per_batch=1_000, blank_text=0.0, single_bos=0.0, wrong_token=0.0)
    codebook = np.random.default_rng(5).normal(size=(CONFIG.bos_id, 80)).astype(np.float32)
    batch = next(iter(Batches(corpus, TOKENIZER, CONFIG, codebook, recipe)))
    network.tfmr.config._attn_implementation = "eager"
    with torch.no_grad():
        seen: dict[int, torch.Tensor] = {}
        for layer, _ in CONFIG.aligned_heads:
            module = network.tfmr.layers[layer].self_attn
            module.register_forward_hook(lambda *call, layer=layer: seen.update({layer: call[-1][1]}))
        network(batch)
        columns = torch.arange(40, 60).expand(len(LENGTHS), -1)
        for layer, head in CONFIG.aligned_heads:
            expected = seen[layer][:, head, 40:60]
            rows = network.attention_rows(layer, head, columns)
            torch.testing.assert_close(rows[..., : expected.shape[-1]], expected, rtol=1e-5, atol=1e-6)
