"""Tiny GGUF models with real vocabularies, and tiny tokenizers, for tests of export."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunebook.export.gguf.battery import text_battery
from tunebook.export.gguf.vocabulary import Vocabulary, write_vocabulary

WIDTH = 64


def write_tiny_model(path: Path, tokenizer: Any, *, spare: int = 3, **keywords: Any) -> Vocabulary:
    """A random Llama of one layer and the tokenizer's vocabulary; `spare` rows have no token."""
    size = len(tokenizer) + spare
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = write_vocabulary(writer, tokenizer, size, **keywords)
    writer.add_name(vocabulary.model_name("Tiny"))
    writer.add_block_count(1)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    writer.add_tensor("token_embd.weight", np.zeros((size, WIDTH), np.float16))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocabulary


def read_vocabulary(shared_data: Path, name: str, folder: Path) -> dict[str, Any]:
    """`tokens` and, where there are any, `scores` and `merges` of a real vocabulary file."""
    file = folder / f"{name}.gguf"
    with lzma.open(shared_data / "vocab" / f"ggml-vocab-{name}.gguf.xz") as packed:
        file.write_bytes(packed.read())
    fields = gguf.GGUFReader(file).fields
    keys = {key: f"tokenizer.ggml.{key}" for key in ("tokens", "scores", "merges")}
    return {key: fields[long].contents() for key, long in keys.items() if long in fields}


def trimmed(folder: Path, out: Path, *, merges: int = 4000) -> Path:
    """A copy of a tokenizer's folder with its first merges alone; all else is as it was.

    Writing and loading a hundred thousand tokens takes ten seconds; what can go wrong lies in the
    splitting, the special tokens and the template, which stay.
    """
    shutil.copytree(folder, out)
    state = json.loads((folder / "tokenizer.json").read_text())
    model, added = state["model"], state["added_tokens"]
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"][:merges]]
    kept = {piece for left, right in pairs for piece in (left, right, left + right)}
    kept |= {piece for piece in model["vocab"] if len(piece) == 1 or piece.startswith("<0x")}
    ids = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
    kept |= {token["content"] for token in added}
    renumbered = {
        piece: n for n, piece in enumerate(sorted(kept & ids.keys(), key=ids.__getitem__))
    }
    model["merges"] = pairs
    model["vocab"] = {piece: renumbered[piece] for piece in model["vocab"] if piece in renumbered}
    for token in added:
        token["id"] = renumbered[token["content"]]
    _renumber(state["post_processor"], renumbered)
    (out / "tokenizer.json").write_text(json.dumps(state))
    return out


def _renumber(processor: dict[str, Any] | None, ids: dict[str, int]) -> None:
    for inner in (processor or {}).get("processors", []):
        _renumber(inner, ids)
    for token in (processor or {}).get("special_tokens", {}).values():
        token["ids"] = [ids[name] for name in token["tokens"]]


def byte_level_tokenizer(
    splits: list[str] | None = None, *, ignore_merges: bool = False, **keywords: Any
) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges run across words, so that every other cut gives other ids.

    Args:
        splits: regexes, or `punctuation`; None is GPT-2's own.
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin|>", "<|end|>"],
        show_progress=False,
        max_token_length=12,
    )
    trained.train_from_iterator(text_battery() * 2, trainer)
    state = json.loads(trained.to_str())
    state["model"]["ignore_merges"] = ignore_merges
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.ByteLevel()
    if splits is not None:
        cuts = [
            pre_tokenizers.Punctuation("contiguous")
            if split == "punctuation"
            else pre_tokenizers.Split(Regex(split), "isolated")
            for split in splits
        ]
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, last])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", **keywords
    )


def metaspace_tokenizer(scheme: str = "always", **keywords: Any) -> PreTrainedTokenizerFast:
    """SentencePiece-like BPE with byte fallback: `▁` for blanks, cut before each of them."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme)
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "<s>", "</s>", *fallback],
        limit_alphabet=120,
        show_progress=False,
    )
    tokenizer.train_from_iterator(text_battery() * 2, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:3]  # bytes are pieces, not added tokens
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        **keywords,
    )
