"""T3 in PyTorch, only for training; its state dict has upstream's keys, so it ships unchanged."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel

from sampler.finch.training.backbone import HeadInputs, run_layers
from sampler.t3.config import T3Config


class PositionEmbedding(nn.Module):
    """Learned positions (`text_pos_emb.emb`, `speech_pos_emb.emb`)."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(length, width)
        nn.init.normal_(self.emb.weight, std=0.02)


class ResamplerAttention(nn.Module):
    """Pre-norm attention with a residual (`cond_enc.perceiver.attn`), used for both passes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.proj_out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Let `queries` (B, Q, D) attend to `memory` (B, M, D)."""
        normed, source = self.norm(queries), self.norm(memory)
        q, k, v = (
            rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for rows in (self.to_q(normed), self.to_k(source), self.to_v(source))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = queries + self.proj_out(mixed)
        return result


class Perceiver(nn.Module):
    """Resamples a prompt of any length to a fixed number of rows (Jaegle et al. 2021, arXiv:2103.03206)."""

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        shape = (1, config.perceiver_queries, config.hidden_size)
        self.pre_attention_query = nn.Parameter(torch.empty(shape).uniform_(-0.3, 0.3))
        self.attn = ResamplerAttention(config.hidden_size, config.perceiver_heads)

    def forward(self, prompt: Tensor) -> Tensor:
        rows = self.attn(self.pre_attention_query.expand(len(prompt), -1, -1), prompt)
        result: Tensor = self.attn(rows, rows)
        return result


class Conditioning(nn.Module):
    """Speaker, prompt and emotion as rows before the text (`cond_enc`)."""

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.spkr_enc = nn.Linear(config.speaker_size, config.hidden_size)
        self.emotion_adv_fc = nn.Linear(1, config.hidden_size, bias=False)
        self.perceiver = Perceiver(config)


@dataclass(frozen=True)
class Batch:
    """Texts and speech of B utterances, padded on the right.

    text (B, S) and text_lengths (B,), with start and stop ids; speech (B, T) inputs and speech_lengths (B,), targets
    (B, T) with -100 where nothing is predicted, positions (B, T) text columns, -1 where unknown; aligned (B, K): steps
    whose attention is trained; speech_positions (T,); prompts (B, P); speakers (B, 256); emotions (B,); no_text (B,)
    bool: rows whose text is blanked, for guidance.
    """

    text: Tensor
    text_lengths: Tensor
    speech: Tensor
    speech_lengths: Tensor
    targets: Tensor
    positions: Tensor
    aligned: Tensor
    speech_positions: Tensor
    prompts: Tensor
    speakers: Tensor
    emotions: Tensor
    no_text: Tensor


@dataclass(frozen=True)
class Losses:
    """Means over a batch, in nats: speech and text cross-entropy, and attention mass off the diagonal."""

    speech: Tensor
    text: Tensor
    alignment: Tensor


class T3Network(nn.Module):
    """The model of `models/t3/t3.py` (chatterbox-tts 0.1.7), with the attention of chosen heads kept for a loss."""

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.tfmr = LlamaModel(
            LlamaConfig(
                vocab_size=8,
                hidden_size=width,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_heads,
                head_dim=config.head_size,
                rms_norm_eps=config.rms_norm_eps,
                max_position_embeddings=131_072,
                rope_parameters={
                    "rope_type": "llama3",
                    "rope_theta": config.rope_theta,
                    "factor": config.rope_factor,
                    "low_freq_factor": config.rope_low_frequency_factor,
                    "high_freq_factor": config.rope_high_frequency_factor,
                    "original_max_position_embeddings": config.rope_original_length,
                },
            )
        )
        self.cond_enc = Conditioning(config)
        self.text_emb = nn.Embedding(config.text_vocab_size, width)
        self.speech_emb = nn.Embedding(config.speech_vocab_size, width)
        nn.init.normal_(self.text_emb.weight, std=0.1)
        nn.init.normal_(self.speech_emb.weight, std=0.1)
        self.text_pos_emb = PositionEmbedding(config.text_positions, width)
        self.speech_pos_emb = PositionEmbedding(config.speech_positions, width)
        self.text_head = nn.Linear(width, config.text_vocab_size, bias=False)
        self.speech_head = nn.Linear(width, config.speech_vocab_size, bias=False)

    def conditioning(self, batch: Batch) -> Tensor:
        """Rows before the text: (B, 34, D)."""
        prompt = self.speech_emb(batch.prompts) + self.speech_pos_emb.emb.weight[: batch.prompts.shape[1]]
        speaker = self.cond_enc.spkr_enc(batch.speakers)[:, None]
        emotion = self.cond_enc.emotion_adv_fc(batch.emotions[:, None, None])
        return torch.cat([speaker, self.cond_enc.perceiver(prompt), emotion], dim=1)

    def forward(self, batch: Batch) -> Losses:
        conditioning = self.conditioning(batch)
        offset = conditioning.shape[1]
        text = self.text_emb(batch.text) * ~batch.no_text[:, None, None]
        text = text + self.text_pos_emb.emb.weight[: text.shape[1]]
        speech = self.speech_emb(batch.speech) + self.speech_pos_emb.emb(batch.speech_positions)
        rows = torch.cat([conditioning, text, speech], dim=1)
        packed = torch.take_along_dim(rows, self._packing(batch, offset)[..., None], dim=1)
        hidden, heads = run_layers(self.tfmr, packed, frozenset(layer for layer, _ in self.config.aligned_heads))
        first = offset + batch.text_lengths[:, None]
        return Losses(
            speech=self._speech_loss(batch, hidden, first),
            text=self._text_loss(batch, hidden[:, offset:]),
            alignment=self._alignment_loss(batch, heads, first, offset),
        )

    def _packing(self, batch: Batch, offset: int) -> Tensor:
        """For each place of the packed row its column in [conditioning | text, padded | speech, padded]: (B, L)."""
        longest = int(batch.text.shape[1])
        total = offset + int((batch.text_lengths + batch.speech_lengths).max())
        place = torch.arange(total).expand(len(batch.text), -1)
        shift = (longest - batch.text_lengths)[:, None]
        moved = torch.where(place < offset + batch.text_lengths[:, None], place, place + shift)
        return moved.clamp_max(offset + longest + batch.speech.shape[1] - 1)

    def _speech_loss(self, batch: Batch, hidden: Tensor, first: Tensor) -> Tensor:
        row, step = torch.nonzero(batch.targets >= 0, as_tuple=True)
        logits = self.speech_head(hidden[row, first[row, 0] + step])
        return functional.cross_entropy(logits, batch.targets[row, step])

    def _text_loss(self, batch: Batch, hidden: Tensor) -> Tensor:
        seen = torch.arange(1, batch.text.shape[1]) < batch.text_lengths[:, None]
        row, place = torch.nonzero(seen & ~batch.no_text[:, None], as_tuple=True)
        if not len(row):  # in a small batch every text may be blank
            return hidden.new_zeros(())
        return functional.cross_entropy(self.text_head(hidden[row, place]), batch.text[row, place + 1])

    def _alignment_loss(
        self, batch: Batch, heads: dict[int, HeadInputs], first: Tensor, offset: int, width: float = 2.5
    ) -> Tensor:
        """Mean of -log of the aligned heads' attention within a Gaussian around the spoken character."""
        positions = torch.gather(batch.positions, 1, batch.aligned)
        use = (positions >= 0) & ~batch.no_text[:, None]
        text_columns = torch.arange(batch.text.shape[1])
        distance = text_columns - positions[..., None]
        target = torch.exp(-0.5 * (distance / width).square()) * (text_columns < batch.text_lengths[:, None, None])
        losses = []
        for layer, head in self.config.aligned_heads:
            attention = heads[layer].attention_rows(head, first + batch.aligned)
            mass = (attention[..., offset : offset + batch.text.shape[1]] * target).sum(-1)
            losses.append(-torch.log(mass[use] + 1e-4).sum() / use.sum().clamp_min(1))
        return torch.stack(losses).mean()
