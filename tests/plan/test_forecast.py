"""The forecast adds up, grows with what costs memory, and agrees with timed figures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tunebook.models.catalog import find
from tunebook.models.shape import ModelShape
from tunebook.plan import DataSize, Hardware, Strategy, make_forecast, make_plan
from tunebook.plan.forecast import count_steps, worst_batch
from tunebook.plan.fused_timing import device_seconds
from tunebook.plan.memory import Batch, memory_parts
from tunebook.plan.nouns import PARTS, Level
from tunebook.recipe import Recipe

GIB = 2**30
QUICK = settings(max_examples=80, deadline=None, derandomize=True)
H200 = Hardware.of("H200")


def shape_of(name: str) -> ModelShape:
    entry = find(name)
    assert entry is not None
    return entry.shape


def strategy(micro_batch=1, *, recompute=True, dtype="bfloat16", optimizer="adamw_8bit", **more):
    return Strategy(
        micro_batch=micro_batch,
        gradient_accumulation_steps=1,
        gradient_checkpointing=recompute,
        dtype=dtype,
        optimizer=optimizer,
        **more,
    )


def peak(shape, recipe, how, batch, device="cuda"):
    return sum(memory_parts(shape, recipe, how, batch, device).values())


# Peak of torch's allocator on one H200: TRL 1.15 + PEFT + bitsandbytes, NF4 double quant, r 16 on
# all linear layers, 16-bit adapters, recompute, rows without padding
TIMED = [
    ("Llama-3.2-1B-Instruct", 2, 2048, 1.84),
    ("Llama-3.2-3B-Instruct", 2, 2048, 3.50),
    ("Llama-3.1-8B-Instruct", 2, 2048, 7.49),
    ("Llama-3.1-8B-Instruct", 1, 8192, 9.45),
]


@pytest.mark.parametrize(("name", "rows", "length", "measured"), TIMED)
def test_peak_agrees_with_the_allocator_of_an_h200(name, rows, length, measured):
    how = strategy(rows, adapter_dtype="bfloat16")
    total = peak(shape_of(name), Recipe(), how, Batch(rows, length, masked=False))
    assert total / GIB == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("engine", ["stock", "fused"])
@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit"])
def test_a_bfloat16_adapter_takes_half(engine, optimizer):
    def parts(dtype):
        recipe = Recipe.of(
            "Llama-3.2-1B-Instruct", optimizer=optimizer, memory_budget="40GiB",
            **{"lora.adapter_dtype": dtype},
        )  # fmt: skip
        return make_plan(recipe, hardware=H200, engine=engine).forecast.parts

    exact, half = parts("auto"), parts("bfloat16")
    assert 2 * half["gradients"] == exact["gradients"] > 0
    states = half["optimizer"] if optimizer == "adamw_8bit" else 2 * half["optimizer"]
    assert states == pytest.approx(exact["optimizer"], rel=1e-3)
    # the fused engine holds a copy in the compute dtype beside it
    assert exact["adapters"] - half["adapters"] == half["gradients"]


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("Llama-3.2-1B-Instruct", 1.7),
        ("Llama-3.2-3B-Instruct", 3.2),
        ("Mistral-7B-Instruct-v0.3", 5.0),
        ("Llama-3.1-8B-Instruct", 7.0),
        ("gemma-2-9b-it", 7.7),
        ("Llama-3.3-70B-Instruct", 42.5),
    ],
)
def test_peak_is_near_the_memory_floor(name, gib):
    total = peak(shape_of(name), Recipe(), strategy(), Batch(1, 2048, masked=False))
    assert total / GIB == pytest.approx(gib, rel=0.25)


def test_four_bit_weights_take_half_a_byte_and_their_scales():
    shape = shape_of("Llama-3.1-8B-Instruct")
    parts = memory_parts(shape, Recipe(), strategy(), Batch(1, 128, False), "cuda")
    expected = shape.linear_parameters() * (0.5 + 1 / 64 + 4 / 16384) + 2 * shape.small_parameters()
    assert parts["weights"] == pytest.approx(expected, rel=1e-3)
    assert parts["embeddings"] == 2 * 2 * 128256 * 4096


sizes = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([64, 256, 1024, 4096]),
        "intermediate_size": st.sampled_from([96, 768, 4096, 14336]),
        "num_hidden_layers": st.integers(1, 60),
        "num_attention_heads": st.sampled_from([4, 8, 32]),
        "vocab_size": st.sampled_from([256, 2048, 32000, 151936]),
        "tie_word_embeddings": st.booleans(),
    }
)
situations = st.fixed_dictionaries(
    {
        "sizes": sizes,
        "r": st.integers(1, 128),
        "bits": st.sampled_from([4, 8, 16]),
        "rows": st.integers(1, 16),
        "length": st.integers(8, 8192),
        "recompute": st.booleans(),
        "masked": st.booleans(),
        "device": st.sampled_from(["cpu", "cuda"]),
    }
)


def parts_of(now):
    shape = ModelShape.from_config({"model_type": "llama", **now["sizes"]})
    recipe = Recipe().with_values({"lora.r": now["r"], "quantization.bits": now["bits"]})
    dtype = "float32" if now["device"] == "cpu" else "bfloat16"
    how = strategy(now["rows"], recompute=now["recompute"], dtype=dtype)
    batch = Batch(now["rows"], now["length"], now["masked"])
    return memory_parts(shape, recipe, how, batch, now["device"])


@QUICK
@given(situations, st.sampled_from(["r", "rows", "length", "layers"]), st.integers(1, 50))
def test_more_never_takes_less_memory(now, what, more):
    larger = {**now, "sizes": dict(now["sizes"])}
    if what == "layers":
        larger["sizes"]["num_hidden_layers"] += more
    else:
        larger[what] += more
    assert sum(parts_of(larger).values()) >= sum(parts_of(now).values())


@QUICK
@given(situations)
def test_recompute_never_takes_more_than_keeping(now):
    kept = sum(parts_of({**now, "recompute": False}).values())
    again = sum(parts_of({**now, "recompute": True}).values())
    one_layer_slack = 0.02 * kept
    assert again <= kept + one_layer_slack


@QUICK
@given(situations)
def test_every_part_is_there_and_none_is_negative(now):
    parts = parts_of(now)
    assert tuple(parts) == PARTS
    assert min(parts.values()) >= 0


def test_total_is_the_sum_of_the_parts():
    shape = shape_of("Qwen3-0.6B")
    forecast = make_forecast(Recipe(), shape, strategy(2), H200, 8 * GIB)
    assert forecast.total == sum(forecast.parts.values())
    assert forecast.fits == (forecast.total <= 8 * GIB)
    assert forecast.steps is None
    assert forecast.seconds_total is None


def test_short_rows_need_less_than_the_longest_allowed():
    shape = shape_of("Qwen3-0.6B")
    short = DataSize(rows=100, mean_length=80, max_length=120)
    less = make_forecast(Recipe(), shape, strategy(2), H200, GIB, short)
    more = make_forecast(Recipe(), shape, strategy(2), H200, GIB)
    assert less.total < more.total
    assert less.sequence_length == 120
    assert less.tokens_per_step == 160


@pytest.mark.parametrize(
    ("rows", "micro", "accumulation", "epochs", "steps"),
    [(100, 2, 4, 1.0, 13), (100, 2, 4, 2.0, 26), (3, 2, 4, 1.0, 1), (8, 2, 4, 0.5, 1)],
)
def test_steps_are_counted_as_the_trainer_does(rows, micro, accumulation, epochs, steps):
    how = strategy(micro).model_copy(update={"gradient_accumulation_steps": accumulation})
    recipe = Recipe().with_values({"epochs": epochs})
    data = DataSize(rows=rows, mean_length=50, max_length=60)
    assert count_steps(recipe, how, data) == steps
    assert count_steps(recipe.with_values({"max_steps": 7}), how, data) == 7


def test_packed_rows_lie_end_to_end_behind_a_mask():
    recipe = Recipe().with_values({"packing": True, "max_seq_length": 512})
    assert worst_batch(recipe, strategy(4), None) == Batch(1, 2048, masked=True)


def test_time_of_an_h200_step_is_of_the_right_size():
    from tunebook.plan.timing import seconds_per_step

    for name, rows, length, measured in [
        ("Llama-3.2-1B-Instruct", 2, 2048, 0.217),
        ("Llama-3.2-3B-Instruct", 2, 2048, 0.537),
        ("Llama-3.1-8B-Instruct", 2, 2048, 0.585),
        ("Llama-3.1-8B-Instruct", 1, 8192, 1.153),
    ]:
        batch = Batch(rows, length, masked=False)
        seconds = seconds_per_step(shape_of(name), Recipe(), strategy(rows), batch, H200)
        assert seconds == pytest.approx(measured, rel=0.3)


# Milliseconds that one H100 is busy in a step of the fused engine: NF4, r 16 on all linear layers,
# everything kept and weights unpacked, everything kept, nothing kept
BUSY = [
    ("Llama-3.2-1B-Instruct", 2, 2048, (47.1, 49.9, 61.8)),
    ("Llama-3.1-8B-Instruct", 2, 2048, (240.1, 257.9, 337.6)),
    ("Llama-3.1-8B-Instruct", 1, 8192, (575.6, 583.9, 758.8)),
]


@pytest.mark.parametrize(("name", "rows", "length", "measured"), BUSY)
def test_time_of_a_fused_step_agrees_with_an_h100(name, rows, length, measured):
    shape = shape_of(name)
    layers = shape.num_hidden_layers
    batch = Batch(rows, length, masked=False)
    for (level, resident), milliseconds in zip(
        ((Level.ALL, layers), (Level.ALL, 0), (Level.NOTHING, 0)), measured, strict=True
    ):
        fused = {"engine": "fused", "attention": "cudnn", "resident_layers": resident}
        how = strategy(rows, recompute=False, levels=(level,) * layers, **fused)
        seconds = device_seconds(shape, Recipe(), how, batch, Hardware.of("H100"))
        assert seconds * 1e3 == pytest.approx(milliseconds, rel=0.03)


def test_the_host_counts_unless_steps_are_replayed():
    shape = shape_of("Llama-3.2-1B-Instruct")
    how = strategy(1, recompute=False, engine="fused", attention="cudnn", levels=(Level.ALL,) * 16)
    h100 = Hardware.of("H100")

    def seconds(mean: float, **changes) -> float:
        data = DataSize(rows=100, mean_length=mean, max_length=512)
        recipe = Recipe().with_values(changes)
        return make_forecast(recipe, shape, how, h100, GIB, data).seconds_per_step

    assert seconds(511) > 2 * seconds(512)  # 16 layers wait for Python, or a graph is replayed
    assert seconds(512, **{"lora.dropout": 0.1}) > 2 * seconds(512)
