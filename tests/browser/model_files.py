"""Model files as exporters write them, small, for tests that look at them in a browser."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

NAME = "Pirate <img src=x onerror=alert(1)> \u202eevil"


def write_gguf(path: Path, name: str = NAME) -> Path:
    """A GGUF file with two types of tensor, a chat template and a name, a hostile one by default."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_context_length(2048)
    writer.add_token_list([f"token {i}" for i in range(100)])
    writer.add_chat_template("{% for m in messages %}<b>{{ m }}</b>{% endfor %}")
    kind = gguf.GGMLQuantizationType.Q4_K
    block, size = gguf.GGML_QUANT_SIZES[kind]
    for layer in range(20):
        packed = np.zeros((64, 256 * size // block), np.uint8)
        writer.add_tensor(f"blk.{layer}.attn_q.weight", packed, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_adapter(folder: Path) -> Path:
    """An adapter folder."""
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {"layers.0.q_proj.lora_A.weight": np.zeros((16, 64), np.float32)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_rows(path: Path, number: int = 12) -> Path:
    """Conversations, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turns = [("user", "Who are you?"), ("assistant", "Arr, a pirate.")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path.write_text("\n".join([json.dumps(row)] * number))
    return path
