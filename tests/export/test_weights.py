"""What is merged: trained embeddings, grown vocabularies, other kinds of adapters; and in what room."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig

from tunebook.errors import DiskFull, ModelInvalid
from tunebook.export import save_adapter, save_merged
from tunebook.export.adapter import new_folder
from tunebook.export.shards import ShardWriter
from tunebook.export.weights import merged_tensors, merged_weights
from tunebook.models.adapters import load_adapter

IDS = torch.arange(1, 41)[None]


def tiny(*, tied: bool = True, **more: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def adapted(base: Any, **options: Any) -> Any:
    """With every trainable weight random, as if it had learnt something."""
    options.setdefault("target_modules", ["q_proj", "down_proj"])
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits.float()
    return found


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("options", "stays_tied"),
    [
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"modules_to_save": ["norm"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"trainable_token_indices": {"embed_tokens": [3, 5]}}, True),
        ({"use_dora": True}, True),
        ({"use_rslora": True, "bias": "all"}, True),
    ],
)
def test_the_merged_model_is_the_adapted_one(
    options: dict[str, Any], stays_tied: bool, tmp_path: Path
) -> None:
    model = adapted(tiny(), **options)
    untouched = logits(tiny())
    save_merged(model, None, tmp_path / "merged")
    again = loaded(tmp_path / "merged")
    assert again.config.tie_word_embeddings == stays_tied
    change = (logits(model) - untouched).abs().mean()
    assert (logits(again) - logits(model)).abs().mean() < 0.05 * change


def test_a_grown_vocabulary_is_written_whole(tmp_path: Path) -> None:
    base = tiny()
    base.resize_token_embeddings(72)
    model = adapted(base)
    save_merged(model, None, tmp_path / "merged")
    again = loaded(tmp_path / "merged")
    assert again.config.vocab_size == 72
    assert again.get_input_embeddings().weight.shape[0] == 72
    assert (logits(again) - logits(model)).abs().max() < 0.05


def test_an_adapter_with_a_grown_vocabulary_comes_back(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "base")
    base = loaded(tmp_path / "base")
    base.resize_token_embeddings(72)
    model = adapted(base)
    save_adapter(model, None, tmp_path / "adapter")
    again = load_adapter(loaded(tmp_path / "base"), tmp_path / "adapter").eval()
    ids = torch.tensor([[1, 70, 71]])
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-5)


def test_an_adapter_in_16_bit_is_multiplied_in_32(tmp_path: Path) -> None:
    model = adapted(tiny())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    a, b = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
    exact = layer.base_layer.weight.double() + 2 * b.double() @ a.double()
    got = dict(merged_tensors(model.get_base_model(), torch.float32))
    error = (got["model.layers.0.mlp.down_proj.weight"].double() - exact).abs().max()
    assert error < 1e-6


def test_experts_have_the_names_of_published_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).eval()
    model = adapted(base, target_modules=["q_proj"])
    save_merged(model, None, tmp_path / "merged")
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert "model.layers.0.block_sparse_moe.experts.3.w2.weight" in file.keys()  # noqa: SIM118
    assert (logits(loaded(tmp_path / "merged")) - logits(model)).abs().max() < 0.05


def test_four_bits_are_what_bitsandbytes_makes_of_the_merged_weight(tmp_path: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    model = adapted(tiny(tied=False))
    save_merged(model, None, tmp_path / "m", method="merged_4bit_forced")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    exact = dict(merged_tensors(model.get_base_model(), torch.float32))
    weight = again.model.layers[1].mlp.down_proj.weight
    data, state = quantize_4bit(
        exact["model.layers.1.mlp.down_proj.weight"], compress_statistics=True, quant_type="nf4"
    )
    assert torch.equal(weight.data.reshape(-1), data.reshape(-1))
    assert weight.quant_state.nested
    ours = dequantize_4bit(weight.data, weight.quant_state).float()
    assert torch.allclose(ours, dequantize_4bit(data, state).float(), atol=2e-3)
    assert again.lm_head.weight.dtype.is_floating_point


def test_a_weight_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    model = adapted(tiny())
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    layer.lora_B["default"].weight.data[3, 0] = math.nan
    with pytest.raises(ModelInvalid, match=r"layers\.1\.mlp\.down_proj\.weight holds 96 values"):
        save_merged(model, None, tmp_path / "merged")
    with pytest.raises(ModelInvalid, match=r"layers\.1\.mlp\.down_proj\.lora_B"):
        save_adapter(model, None, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    add = ShardWriter.add

    def full(self: ShardWriter, name: str, tensor: torch.Tensor) -> int:
        nonlocal count
        count += 1
        if count == 5:
            raise OSError(28, "No space left on device")
        return add(self, name, tensor)

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(DiskFull, match="write the merged model"):
        save_merged(adapted(tiny()), None, tmp_path / "a" / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from tunebook.export.adapter import new_folder\n"
        "with new_folder(Path(sys.argv[1]), 10, purpose='x', replace=False) as folder:\n"
        "    (folder / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "merged"
    done = subprocess.run([sys.executable, "-c", code, str(target)], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with (
        new_folder(target, 10, purpose="x", replace=False) as mine,
        new_folder(
            target, 10, purpose="x", replace=True
        ),  # another writer that lives is left alone
    ):
        assert mine.is_dir()
        assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_merging_takes_the_room_of_a_few_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=768, intermediate_size=1536, num_hidden_layers=10,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    model = adapted(LlamaForCausalLM(config).to(torch.bfloat16), target_modules=["down_proj"])
    weights = merged_weights(model.get_base_model())
    largest = max(4 * weight.elements for weight in weights)
    whole = sum(2 * weight.elements for weight in weights)
    save_merged(adapted(tiny()), None, tmp_path / "warm")  # what is imported for it stays
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest point so far
    before = _memory("VmHWM")
    save_merged(model, None, tmp_path / "merged")
    used = _memory("VmHWM") - before
    assert whole > 12 * largest
    assert used < 6 * largest


def _memory(name: str) -> int:
    """Bytes, from /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def test_files_are_filled_up_to_their_size_and_to_their_header(tmp_path: Path) -> None:
    tensors = {f"layer.{n}.weight": torch.full((10, 10), float(n)) for n in range(60)}
    with ShardWriter(tmp_path, shard_bytes=6_000, expected=4) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) == 4
    seen = {}
    for path in files:
        with safe_open(path, "pt") as file:
            seen |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert seen.keys() == tensors.keys()
    assert all(torch.equal(seen[name], tensors[name]) for name in tensors)
