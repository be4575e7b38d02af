"""Merged weights are the adapter's model: the same answers, the right rounding, files that load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from tunebook.errors import DiskFull, FolderExists, ModelInvalid
from tunebook.export import save_adapter, save_merged
from tunebook.export.adapter import new_folder
from tunebook.models.adapters import add_lora, load_adapter
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe


def tuned(bits: Any = 4, **lora: Any) -> Any:
    """The embedded model with a LoRA whose B is random, as if it had learnt something."""
    base = load_model(ModelPart(), QuantizationPart(bits=bits))
    model = add_lora(base, LoraPart(**lora), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 45, device=model.device)[None]
    with torch.no_grad():
        return model(ids).logits.float().cpu()


# every weight is rounded to bfloat16 once; LLM.int8 rounds the activations too, where it runs live
@pytest.mark.parametrize(("bits", "tolerance"), [(4, 0.15), (8, 0.5), (16, 0.15)])
def test_a_merged_model_answers_as_the_adapter_does(
    bits: int, tolerance: float, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = tuned(bits)
    base_only = load_model(ModelPart(), QuantizationPart(bits=bits))
    save_merged(model, load_tokenizer(ModelPart()), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    change = (logits(model) - logits(base_only)).abs().mean()
    error = (logits(merged) - logits(model)).abs().mean()
    assert error < tolerance * change


def test_each_weight_is_the_base_plus_the_scaled_product_rounded_once(tmp_path: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from safetensors.torch import load_file

    model = tuned(4, r=4, alpha=12)
    save_merged(model, load_tokenizer(ModelPart()), tmp_path / "merged")
    saved = load_file(tmp_path / "merged" / "model.safetensors")
    layer = model.get_base_model().model.layers[3].mlp.down_proj
    weight = layer.base_layer.weight
    base = dequantize_4bit(weight.data, weight.quant_state).double()
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    exact = (base + 12 / 4 * (b @ a)).cpu()
    got = saved["model.layers.3.mlp.down_proj.weight"].double()
    assert ((got - exact).abs() <= exact.abs() * 2**-8 + 1e-9).all()


def test_tied_embeddings_are_written_once_and_tied_again(tmp_path: Path) -> None:
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    save_merged(tuned(), load_tokenizer(ModelPart()), tmp_path / "merged")
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_large_models_are_sharded_and_load_whole(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tuned()
    save_merged(model, load_tokenizer(ModelPart()), tmp_path / "one")
    save_merged(model, load_tokenizer(ModelPart()), tmp_path / "many", shard_bytes=3_000_000)
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) >= 4
    one = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    many = AutoModelForCausalLM.from_pretrained(tmp_path / "many")
    assert torch.equal(logits(one), logits(many))


def test_an_adapter_comes_back_to_the_bit(tmp_path: Path) -> None:
    model = tuned()
    recipe = Recipe()
    save_adapter(model, load_tokenizer(ModelPart()), tmp_path / "adapter", recipe=recipe)
    again = load_adapter(load_model(ModelPart(), QuantizationPart()), tmp_path / "adapter")
    assert torch.equal(logits(again.eval()), logits(model))
    assert Recipe.load(tmp_path / "adapter" / "recipe.yaml") == recipe
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "tunebook-tiny"' in config


def test_lora_without_an_adapter_is_refused(tmp_path: Path) -> None:
    base = load_model(ModelPart(), QuantizationPart(bits=16))
    with pytest.raises(ModelInvalid, match="no adapter"):
        save_merged(base, load_tokenizer(ModelPart()), tmp_path / "x", method="lora")


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderExists):
        save_merged(tuned(), load_tokenizer(ModelPart()), tmp_path / "mine")
    save_merged(tuned(), load_tokenizer(ModelPart()), tmp_path / "mine", replace=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "mine" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (OSError(28, "No space left on device"), DiskFull),
        (SafetensorError("I/O error: No space left on device (os error 28)"), DiskFull),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path, fail: BaseException, said: type[BaseException]
) -> None:
    def write() -> None:
        with new_folder(tmp_path / "a" / "b", 10, purpose="x", replace=False) as folder:
            (folder / "half").write_text("half")
            raise fail

    with pytest.raises(said):
        write()
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_writing(
    tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    model, tokenizer = tuned(), load_tokenizer(ModelPart())
    full_disk()
    with pytest.raises(DiskFull, match="merged model"):
        save_merged(model, tokenizer, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
