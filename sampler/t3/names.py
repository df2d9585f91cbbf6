"""Names of tensors as upstream's `T3.state_dict()` has them, from those that a file has."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Shape = tuple[int, ...]

MODULES: Final = frozenset({
    "tfmr", "cond_enc", "text_emb", "text_head", "speech_emb", "speech_head", "text_pos_emb", "speech_pos_emb",
})  # fmt: skip
"""First parts of the names of a T3."""

FEWEST: Final = 3
"""Modules that make a T3: a file that lacks a tensor is still one."""

PARTS: Final = frozenset({
    "ve", "s3gen", "s3", "gen", "conds", "s3_tokenizer", "tokenizer", "flow", "mel2wav", "speaker_encoder",
    "lstm", "proj", "similarity_weight", "similarity_bias",
})  # fmt: skip
"""First parts of names beside a T3 without a prefix: voice encoder, S3Gen, conditioning."""

WRAPPERS: Final = re.compile(
    r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_modules|_parameters|_buffers)\."
)
"""What torch.compile, DataParallel, FSDP and a pickled module put into names, at any place."""

RENAMED: Final = (
    ("tfmr.model.", "tfmr."),  # mlx-audio
    ("tfmr.transformer.", "tfmr."),  # GPT2LMHeadModel
    ("patched_model.model.", "tfmr."),  # T3 after a call of `inference`, which wraps its modules a second time
    ("patched_model.speech_enc.", "speech_emb."),
    ("patched_model.speech_head.", "speech_head."),
)
"""Other names of modules and upstream's."""

UNUSED: Final = re.compile(
    r"tfmr\.(?:embed_tokens|wte|lm_head)\.weight|text_head\.(?:weight|bias)|patched_model\..*"
    r"|tfmr\.h\.\d+\.attn\.(?:bias|masked_bias)"
    r"|(?:.*\.)?(?:inv_freq|original_inv_freq|cos_cached|sin_cached|attention_mask|causal_mask|position_ids"
    r"|num_batches_tracked|mask)"
    r"|n_averaged|global_step|epoch|step|iteration"
)
"""Tensors that the network does not read: they may be there or not, in any shape."""

TRANSPOSED: Final = re.compile(r"tfmr\.h\.\d+\.(?:attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
"""Matrices that transformers stores as (in, out), MLX as (out, in)."""


@dataclass(frozen=True)
class Layout:
    """Where a file has the tensors of a T3.

    names: the file's name of each tensor by upstream's. prefix: of all of them. changes: what was renamed, in words.
    parts: tensors of other models, counted by the beginning of their names. unused: as `names`, of tensors that the
    network does not read. copies: upstream's name by the file's, of tensors that it has twice. is_transposed: whether
    GPT-2's matrices are (out, in).
    """

    names: dict[str, str]
    prefix: str = ""
    changes: tuple[str, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    is_transposed: bool = False

    def __str__(self) -> str:
        """How the names differ from upstream's: `'t3.' removed, 'tfmr.model.' read as 'tfmr.'`."""
        return ", ".join(self.changes) or "upstream's names"

    @property
    def ignored(self) -> tuple[str, ...]:
        """What of the file is not read, in words."""
        kinds = Counter(re.sub(r"\d+", "*", name) for name in self.unused)
        unused = [f"{kind} ({count})" if count > 1 else kind for kind, count in sorted(kinds.items())]
        others = Counter(self.parts) + Counter(f"{name.split('.')[0]}." for name in self.copies)
        return (*(f"{part}* ({count})" for part, count in sorted(others.items())), *unused)


def prefixes_of(names: Iterable[str]) -> list[str]:
    """What the names of each T3 in a file begin with, an empty text for upstream's own; wrappers do not count."""
    found = defaultdict[str, set[str]](set)
    for name in names:
        parts = WRAPPERS.sub("", name).split(".")
        place = next((place for place, part in enumerate(parts) if part in MODULES), None)
        if place is not None:
            found["".join(f"{part}." for part in parts[:place])].add(parts[place])
    return sorted(prefix for prefix, modules in found.items() if len(modules) >= FEWEST)


def layout_of(shapes: Mapping[str, Shape], prefix: str) -> Layout:
    """The layout of a T3 whose names begin with `prefix`. shapes: of all tensors of a file."""
    read = [_read(name, prefix) for name in shapes]
    changes = dict.fromkeys([f"{prefix!r} removed"] if prefix else [])
    names, unused, copies = dict[str, str](), dict[str, str](), dict[str, str]()
    for each in sorted((each for each in read if not each.part), key=lambda each: len(each.changes)):
        if UNUSED.fullmatch(each.own):
            unused[each.own] = each.name
        elif each.own in names:  # under upstream's own name too
            copies[each.name] = each.own
        else:
            names[each.own] = each.name
            changes |= dict.fromkeys(each.changes)
    width = shapes.get(names.get("speech_emb.weight", ""), ())[1:]
    turned = [own for own in names if own.endswith(".attn.c_attn.weight") and shapes[names[own]][1:] == width != ()]
    if turned:
        changes["matrices of GPT-2 transposed"] = None
    parts = Counter(each.part for each in read if each.part)
    return Layout(names, prefix, tuple(changes), parts, unused, copies, bool(turned))


class _Name(NamedTuple):
    """A file's name of a tensor, upstream's, what differs in words, or the other model that the tensor belongs to."""

    name: str
    own: str
    changes: tuple[str, ...] = ()
    part: str = ""


def _read(name: str, prefix: str) -> _Name:
    wrappers = dict.fromkeys(WRAPPERS.findall(name))
    full = WRAPPERS.sub("", name)
    own = full.removeprefix(prefix)
    parts = full.split(".")
    if not full.startswith(prefix) or (not prefix and parts[0] in PARTS):
        return _Name(name, own, part="".join(f"{part}." for part in parts[: max(1, prefix.count("."))]))
    changes = [f"{wrapper!r} removed" for wrapper in wrappers]
    for other, upstreams in RENAMED:
        if own.startswith(other):
            own = upstreams + own.removeprefix(other)
            changes.append(f"{other!r} read as {upstreams!r}")
    return _Name(name, own, tuple(changes))
