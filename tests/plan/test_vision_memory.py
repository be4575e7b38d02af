"""The forecast of a vision tower's memory against the allocator's; kernels as in `test_fused_memory`."""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import Any

import pytest
import torch
from test_fused_memory import allocate_as_kernels_do, recipe_of

from tunebook.engine import CAUSAL, LossRequest, fused_vision_blocks, host_inputs, patch
from tunebook.models.adapters import add_lora
from tunebook.models.shape import ModelShape
from tunebook.plan import Strategy
from tunebook.plan.fused_memory import fused_parts, kept_bytes
from tunebook.plan.memory import Batch, resident_parts
from tunebook.plan.nouns import Level
from tunebook.training.memory import measure_step_memory, resident_bytes
from tunebook.training.spend import apply_strategy

IMAGE, MERGE, PATCH = 120, 2, 4


@pytest.fixture(autouse=True)
def one_thread():
    """The CPU's attention has a buffer for each thread, which no GPU has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 128, "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
}  # fmt: skip
TOWERS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 3},
    "qwen2_5_vl": {
        "hidden_size": 64, "intermediate_size": 192, "out_hidden_size": 64, "window_size": 4096,
        "fullatt_block_indexes": [1],
    },
}  # fmt: skip
SHARED = {
    "depth": 4, "num_heads": 4, "patch_size": PATCH, "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
}  # fmt: skip


@pytest.fixture
def make(monkeypatch, tmp_path):
    def build(family: str, bits: int, lora: dict[str, Any]) -> tuple[Any, ModelShape, Any]:
        from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

        config = AutoConfig.for_model(
            family, text_config=copy.deepcopy(TEXT), vision_config={**SHARED, **TOWERS[family]},
            image_token_id=IMAGE, video_token_id=121, vision_start_token_id=122,
            vision_end_token_id=123, tie_word_embeddings=True,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        if bits == 4:
            pytest.importorskip("bitsandbytes")
            model.save_pretrained(tmp_path)
            how = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float32,
            )  # fmt: skip
            model = AutoModelForImageTextToText.from_pretrained(
                tmp_path, device_map={"": "cpu"}, dtype=torch.float32, quantization_config=how
            )
        recipe = recipe_of(bits, lora)
        model = add_lora(model, recipe.lora, seed=0)
        patch(model, device="any")
        assert len(fused_vision_blocks(model)) == SHARED["depth"]
        allocate_as_kernels_do(monkeypatch)
        allocate_as_towers_do(monkeypatch)
        return model, ModelShape.from_config(config.to_dict()), recipe

    return build


def allocate_as_towers_do(monkeypatch) -> None:
    block = sys.modules["tunebook.engine.vision_block"]

    def norm_forward(x, weight, bias, eps, out=None):
        y = torch.empty_like(x) if out is None else out
        return y.fill_(1.0), x, torch.ones(x.shape[0]), torch.ones(x.shape[0])

    def norm_backward(dy, x, *_, **__):
        return torch.ones_like(x), None, None

    for name, kernel in {
        "layer_norm_forward": norm_forward,
        "layer_norm_backward": norm_backward,
        "activation_forward": lambda x, _: torch.ones(x.shape),
        "activation_backward": lambda *_, **__: None,
    }.items():
        monkeypatch.setattr(block, name, kernel)


def strategy_of(level: Level) -> Strategy:
    return Strategy(
        micro_batch=1, gradient_accumulation_steps=1, gradient_checkpointing=False,
        dtype="float32", optimizer="adamw_torch_fused", attention="cudnn", engine="fused",
        levels=(level, level),
    )  # fmt: skip


def batch_of(model: Any, side: int) -> dict[str, Any]:
    """One image of side · side patches, and a little text."""
    tokens = (side // MERGE) ** 2
    ids = torch.tensor([[5, 6, *[IMAGE] * tokens, *range(7, 27)]])
    batch = {
        "input_ids": ids,
        "labels": ids.masked_fill(ids == IMAGE, -100),
        "pixel_values": torch.randn(side**2, 3 * 2 * PATCH**2),
        "image_grid_thw": torch.tensor([(1, side, side)]),
    }
    return {**host_inputs(model)(batch), "attention_mask": CAUSAL}


def step(model: Any, batch: dict[str, Any]) -> None:
    given = {name: value for name, value in batch.items() if name != "labels"}
    rows = torch.arange(batch["labels"].shape[1])
    request = LossRequest(batch["labels"], rows=rows, chunk=len(rows))
    model(**given, use_cache=False, fused_loss=request).loss.backward()


CASES = [
    ("qwen2_vl", 16, {}),
    ("qwen2_5_vl", 16, {}),
    ("qwen2_5_vl", 4, {}),
    ("qwen2_5_vl", 16, {"vision_layers": False}),
]


@pytest.mark.parametrize(("family", "bits", "lora"), CASES)
def test_the_peak_of_a_step_with_an_image_is_within_five_percent(make, family, bits, lora):
    model, shape, recipe = make(family, bits, lora)
    side = 40  # so that the blocks that the CPU's attention works on are little beside it
    batch = batch_of(model, side)
    for level in Level:
        strategy = strategy_of(level)
        assert apply_strategy(model, strategy)
        step(model, batch)
        tokens = batch["input_ids"].shape[1]
        worst = Batch(1, tokens, masked=False, patches=side**2)
        chunked = strategy.model_copy(update={"loss_chunk": tokens})
        parts = fused_parts(shape, recipe, chunked, worst, "cpu")
        peak = parts["activations"] + parts["logits"] + parts["scratch"]
        stays = batch["pixel_values"].nbytes + scratch_bytes()
        measured = measure_step_memory(partial(step, model, batch)) + stays
        assert measured == pytest.approx(peak, rel=0.05), level


def scratch_bytes() -> int:
    from tunebook.engine.linear_group import SCRATCH

    return sum(buffer.nbytes for buffer in SCRATCH._buffers.values())


@pytest.mark.parametrize("bits", [4, 16])
def test_a_model_with_a_tower_takes_the_bytes_that_were_forecast(make, bits):
    model, shape, recipe = make("qwen2_5_vl", bits, {})
    step(model, batch_of(model, 4))
    model.zero_grad(set_to_none=True)
    parts = resident_parts(shape, recipe, strategy_of(Level.NOTHING), "cpu")
    forecast = parts["weights"] + parts["embeddings"] + parts["adapters"]
    assert resident_bytes(model) == pytest.approx(forecast, rel=0.01)


def test_a_tower_without_adapters_keeps_nothing(make):
    _, shape, recipe = make("qwen2_5_vl", 16, {"vision_layers": False})
    with_images = Batch(1, 300, masked=False, patches=4000)
    without = Batch(1, 300, masked=False)
    strategy = strategy_of(Level.ALL)
    kept = [kept_bytes(shape, recipe, strategy, one) for one in (with_images, without)]
    assert kept[0] == kept[1]
    learns = recipe.with_values({"lora.vision_layers": True})
    assert kept_bytes(shape, learns, strategy, with_images) > 10 * kept[0]
