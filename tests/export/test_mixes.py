"""The type of every tensor is the one that llama.cpp's own quantizer chooses."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunebook.errors import RecipeInvalid
from tunebook.export.gguf.mixes import (
    ALIASES,
    INSTEAD,
    MIXES,
    Network,
    mix_named,
    tensor_bytes,
    tensor_type,
)
from tunebook.export.gguf.quality import choices
from tunebook.export.gguf.sizes import predicted_bytes
from tunebook.models.catalog import find
from tunebook.models.shape import shape_of_files
from tunebook.recipe import ExportPart

# Shape of the network: hidden size, MLP size, and what the choice depends on.
LLAMA_3_8B = (4096, 14336, Network(layers=32, heads=32, key_value_heads=8))
QWEN_0_5B = (896, 4864, Network(layers=24, heads=14, key_value_heads=2, tied=True))
MIXTRAL = (4096, 14336, Network(layers=32, heads=32, key_value_heads=8, experts=8))

# How often `llama_tensor_get_type` of llama.cpp (src/llama-quant.cpp, b11549) chose each type.
COUNTS = {
    "Q8_0": ({"Q8_0": 226}, {"Q8_0": 169}, {"Q8_0": 226}),
    "Q6_K": ({"Q6_K": 226}, {"Q6_K": 24, "Q8_0": 145}, {"Q6_K": 162, "Q8_0": 64}),
    "Q5_K_M": (
        {"Q5_K": 193, "Q6_K": 33},
        {"Q5_1": 132, "Q5_K": 12, "Q6_K": 12, "Q8_0": 13},
        {"Q5_K": 145, "Q6_K": 17, "Q8_0": 64},
    ),
    "Q5_K_S": (
        {"Q5_K": 225, "Q6_K": 1},
        {"Q5_1": 144, "Q5_K": 24, "Q8_0": 1},
        {"Q5_K": 161, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q5_1": (
        {"Q5_1": 225, "Q6_K": 1},
        {"Q5_1": 168, "Q8_0": 1},
        {"Q5_1": 161, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q5_0": (
        {"Q5_0": 225, "Q6_K": 1},
        {"Q5_0": 168, "Q8_0": 1},
        {"Q5_0": 161, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q4_K_M": (
        {"Q4_K": 193, "Q6_K": 33},
        {"Q4_K": 12, "Q5_0": 132, "Q6_K": 12, "Q8_0": 13},
        {"Q4_K": 113, "Q5_K": 32, "Q6_K": 17, "Q8_0": 64},
    ),
    "Q4_K_S": (
        {"Q4_K": 217, "Q5_K": 8, "Q6_K": 1},
        {"Q4_K": 21, "Q5_0": 140, "Q5_1": 4, "Q5_K": 3, "Q8_0": 1},
        {"Q4_K": 125, "Q5_K": 36, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q4_1": (
        {"Q4_1": 225, "Q6_K": 1},
        {"Q4_1": 168, "Q8_0": 1},
        {"Q4_1": 161, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q4_0": (
        {"Q4_0": 225, "Q6_K": 1},
        {"Q4_0": 168, "Q8_0": 1},
        {"Q4_0": 161, "Q6_K": 1, "Q8_0": 64},
    ),
    "IQ4_NL": (
        {"IQ4_NL": 189, "Q5_K": 36, "Q6_K": 1},
        {"IQ4_NL": 141, "Q5_1": 24, "Q5_K": 3, "Q8_0": 1},
        {"IQ4_NL": 125, "Q5_K": 36, "Q6_K": 1, "Q8_0": 64},
    ),
    "IQ4_XS": (
        {"IQ4_XS": 189, "Q5_K": 36, "Q6_K": 1},
        {"IQ4_NL": 120, "IQ4_XS": 21, "Q5_1": 24, "Q5_K": 3, "Q8_0": 1},
        {"IQ4_XS": 125, "Q5_K": 36, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q3_K_L": (
        {"Q3_K": 129, "Q5_K": 96, "Q6_K": 1},
        {"Q4_0": 96, "Q5_1": 48, "Q5_K": 24, "Q8_0": 1},
        {"Q3_K": 129, "Q5_K": 32, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q3_K_M": (
        {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1},
        {"Q4_0": 96, "Q4_K": 23, "Q5_0": 46, "Q5_1": 2, "Q5_K": 1, "Q8_0": 1},
        {"Q3_K": 97, "Q4_K": 30, "Q5_K": 34, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q3_K_S": (
        {"Q3_K": 225, "Q6_K": 1},
        {"Q3_K": 24, "Q4_0": 144, "Q8_0": 1},
        {"Q3_K": 129, "Q5_K": 32, "Q6_K": 1, "Q8_0": 64},
    ),
    "Q2_K": (
        {"Q2_K": 129, "Q3_K": 64, "Q4_K": 32, "Q6_K": 1},
        {"Q3_K": 24, "Q4_0": 120, "Q5_0": 24, "Q8_0": 1},
        {"Q2_K": 97, "Q3_K": 32, "Q5_K": 32, "Q6_K": 1, "Q8_0": 64},
    ),
}


def matrices(hidden: int, wide: int, network: Network) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (1000, hidden)
    if not network.tied:
        yield "output.weight", (1000, hidden)
    narrow = hidden * network.key_value_heads // network.heads
    for layer in range(network.layers):
        parts = {
            **{"attn_q": (hidden, hidden), "attn_k": (narrow, hidden), "attn_v": (narrow, hidden)},
            "attn_output": (hidden, hidden),
        }
        experts = (network.experts,) if network.experts else ()
        end = "_exps" if network.experts else ""
        for name, shape in {
            "ffn_gate": (wide, hidden),
            "ffn_up": (wide, hidden),
            "ffn_down": (hidden, wide),
        }.items():
            parts[name + end] = (*experts, *shape)  # type: ignore[assignment]
        for name, shape in parts.items():
            yield f"blk.{layer}.{name}.weight", shape


def test_every_mix_is_compared() -> None:
    assert set(COUNTS) == set(MIXES) - {"F32", "F16", "BF16", "Q2_K_L"}


@pytest.mark.parametrize("name", list(COUNTS))
def test_types_are_llama_cpps(name: str) -> None:
    for (hidden, wide, network), counts in zip(
        (LLAMA_3_8B, QWEN_0_5B, MIXTRAL), COUNTS[name], strict=True
    ):
        chosen = Counter(
            tensor_type(tensor, shape, MIXES[name], network)
            for tensor, shape in matrices(hidden, wide, network)
        )
        assert chosen == counts


def test_the_layers_with_more_bits_are_llama_cpps() -> None:
    hidden, wide, network = LLAMA_3_8B
    finer = [
        int(name.split(".")[1])
        for name, shape in matrices(hidden, wide, network)
        if "ffn_down" in name and tensor_type(name, shape, MIXES["Q4_K_M"], network) == "Q6_K"
    ]
    assert finer == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


def test_importance_and_the_70b_model_change_the_choice() -> None:
    measured = Network(layers=32, heads=32, key_value_heads=8, importance=True)
    down = ("blk.0.ffn_down.weight", (4096, 14336))
    assert tensor_type(*down, MIXES["Q4_0"], measured) == "Q4_1"
    assert tensor_type(*down, MIXES["IQ4_XS"], measured) == "IQ4_XS"
    largest = Network(layers=80, heads=64, key_value_heads=8)
    assert tensor_type("blk.20.attn_v.weight", (1024, 8192), MIXES["Q4_K_M"], largest) == "Q5_K"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.attn_norm.weight", (4096,)),
        ("blk.0.attn_q.bias", (4096,)),
        ("blk.0.ffn_gate_inp.weight", (8, 4096)),
        ("rope_freqs.weight", (64,)),
    ],
)
def test_norms_biases_and_routers_stay_in_32_bits(name: str, shape: tuple[int, ...]) -> None:
    assert {tensor_type(name, shape, mix, MIXTRAL[2]) for mix in MIXES.values()} == {"F32"}


def test_output_and_embedding_of_q2_k_l_are_fine() -> None:
    network = LLAMA_3_8B[2]
    for name in ("output.weight", "token_embd.weight"):
        assert tensor_type(name, (1000, 4096), MIXES["Q2_K_L"], network) == "Q8_0"


def test_rows_that_no_block_divides_are_f16() -> None:
    assert tensor_type("blk.0.attn_q.weight", (50, 50), MIXES["Q4_K_M"], LLAMA_3_8B[2]) == "F16"


def test_names_are_found_as_people_write_them() -> None:
    assert mix_named("q4_k_m") is mix_named("Q4-K-M") is mix_named("quantized") is MIXES["Q4_K_M"]
    assert mix_named("fast_quantized") is MIXES["Q8_0"]
    assert all(mix_named(name) for name in ALIASES)


@pytest.mark.parametrize("name", list(INSTEAD))
def test_what_is_not_written_names_what_is_nearest(name: str) -> None:
    with pytest.raises(RecipeInvalid) as caught:
        mix_named(name)
    assert f"use {INSTEAD[name]!r}" in caught.value.do
    assert mix_named(INSTEAD[name])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RecipeInvalid, match=r"q4_k_m.*quantized"):
        mix_named("q9_z")


def test_the_recipe_takes_every_mix() -> None:
    every = [name.lower() for name in MIXES]
    assert ExportPart(gguf_quantization=every).gguf_quantization == every  # type: ignore[arg-type]


def test_the_predicted_size_is_that_of_a_published_file() -> None:
    # Llama-3.1-8B Q4_K_M: 4,920,739,232 bytes, of which 7.8 MB are vocabulary
    entry = find("Llama-3.1-8B-Instruct")
    assert entry is not None
    assert predicted_bytes(entry.shape, "q4_k_m") == pytest.approx(4_912_900_000, rel=1e-4)


MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "vocab_size": 32000,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "vocab_size": 151936,
}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(MIXTRAL_8X7B, 46_702_792_704), (QWEN3_30B_A3B, 30_532_122_624)],
)
def test_files_of_experts_are_foretold(config: dict[str, Any], parameters: int) -> None:
    shape = shape_of_files(config)
    assert shape.total_parameters() == parameters
    rows = {row.name: row for row in choices(shape)}
    assert set(rows) == {name.lower() for name in (*MIXES, "dynamic")}
    assert 4.7 < rows["q4_k_m"].bits < 5.0
    assert rows["bf16"].bits == pytest.approx(16, abs=0.02)  # routers have 32


@pytest.mark.parametrize("family", ["mixtral", "qwen3-moe", "llama-3.1", "phi-3.5"])
def test_a_file_has_the_bytes_that_were_foretold(family: str) -> None:
    from tiny_models import tiny_model

    from tunebook.export.gguf.writer import content_of
    from tunebook.models.loading import load_tokenizer
    from tunebook.recipe import ModelPart

    model = tiny_model(family)
    content = content_of(model, load_tokenizer(ModelPart()))
    shape = shape_of_files(model.config.to_dict())
    beside = {"llama-3.1": 4 * 32, "phi-3.5": 8 * 32}.get(family, 0)  # factors of the rotation
    for name, mix in MIXES.items():
        assert predicted_bytes(shape, name) + beside == content.bytes(mix), name


def test_bytes_count_blocks() -> None:
    assert tensor_bytes((3, 256), "Q4_K") == 3 * 144
    assert tensor_bytes((2, 3, 64), "Q8_0") == 6 * 68


def test_every_type_is_described_and_the_larger_ones_of_a_kind_are_the_closer_ones() -> None:
    entry = find("Llama-3.1-8B-Instruct")
    assert entry is not None
    rows = choices(entry.shape)
    assert {row.name.upper() for row in rows} == {*MIXES, "DYNAMIC"}
    usual = [row for row in rows if row.quality.usual]
    order = ["16 bit", "like 16 bit", "very close", "close", "good", "weak", "poor"]
    ranks = [order.index(row.quality.closeness) for row in usual]
    assert ranks == sorted(ranks)
    (row,) = [row for row in rows if row.name == "q4_k_m"]
    assert round(row.bits, 2) == 4.89
    assert row.bytes == predicted_bytes(entry.shape, "q4_k_m")


def test_the_page_of_exports_is_made_from_the_tables(project_root: Path) -> None:
    made = runpy.run_path(str(project_root / "docs" / "generate.py"))
    text = (project_root / "docs" / "export.md").read_text(encoding="utf-8")
    assert made["export_page"](text) == text
    assert "| `q4_k_m` | 4.89 |" in text
