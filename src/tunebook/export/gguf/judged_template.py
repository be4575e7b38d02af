"""A chat template before llama.cpp's own parser, on a file of a few kilobytes, before a real one is written.

Needs the optional package xllamacpp. Knows templates and the least of GGUF that is loaded.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tunebook.errors import FileInvalid, TemplateInvalid
from tunebook.export.gguf.judge import LlamaServer, can_judge

_WIDTH = 32
_PLAIN = "{{ messages[0]['content'] }}"
_ASKED = [{"role": "user", "content": "Hello!"}]
# control characters as llama.cpp's types of tokens: unknown, control, byte
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6


@lru_cache(maxsize=64)
def refusal(template: str, start: str, end: str) -> str | None:
    """Why llama.cpp cannot run a template; nothing if it can, None if it is not there to be asked.

    Args:
        start, end: tokens that it gives the template as `bos_token` and `eos_token`.
    """
    if not can_judge():
        return None
    why = _refused(template, start, end)
    if why and _refused(_PLAIN, start, end):
        return None  # it runs no template here, so the reason is another one
    return why


def _refused(template: str, start: str, end: str) -> str:
    with tempfile.TemporaryDirectory(prefix="tunebook-template-") as folder:
        path = Path(folder) / "template.gguf"
        _write(path, template, start, end)
        try:
            with LlamaServer(path, context=256, threads=1) as server:
                server.prompt(_ASKED)
        except (FileInvalid, TemplateInvalid) as error:
            return error.why if "\n" not in error.why else "it cannot parse it"  # a log, no reason
    return ""


def _write(path: Path, template: str, start: str, end: str) -> None:
    """The smallest model that llama.cpp loads: one layer of zeros and a vocabulary of bytes."""
    import gguf

    tokens = ["<unk>", start, end, *(f"<0x{byte:02X}>" for byte in range(256))]
    writer = gguf.GGUFWriter(path, "llama")
    try:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types([_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(template)
        for add, value in _sizes(writer):
            add(value)
        _add_tensors(writer, len(tokens))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _sizes(writer: Any) -> list[tuple[Any, float]]:
    return [
        (writer.add_block_count, 1),
        (writer.add_context_length, 256),
        (writer.add_embedding_length, _WIDTH),
        (writer.add_feed_forward_length, _WIDTH),
        (writer.add_head_count, 1),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ]


def _add_tensors(writer: Any, tokens: int) -> None:
    writer.add_tensor("token_embd.weight", np.zeros((tokens, _WIDTH), np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((_WIDTH, _WIDTH), np.float32))
