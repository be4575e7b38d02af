"""The ladder keeps the effective batch, stops at the first rung that fits, says what to change."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings, strategies as st

from tunebook.errors import DoesNotFit, RecipeInvalid
from tunebook.models.loading import load_shape
from tunebook.plan import (
    DataSize,
    Hardware,
    Level,
    Plan,
    make_forecast,
    make_plan,
    parse_budget,
    require_fit,
    step_down,
)
from tunebook.plan.fused_strategy import _Ladder
from tunebook.recipe import Recipe

GIB = 2**30
T4 = Hardware.of("T4")
H200 = Hardware.of("H200")
CPU = Hardware(
    device="cpu",
    name="a CPU",
    total_memory=16 * GIB,
    free_memory=10 * GIB,
    cores=4,
    flops=1e11,
    bandwidth=2e10,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("6.5GiB", 6979321856),
        ("8GB", 8_000_000_000),
        ("8 GB", 8_000_000_000),
        ("512MiB", 536870912),
        ("1.5KB", 1500),
        ("100B", 100),
        ("auto", 9 * GIB),
    ],
)
def test_budgets_are_read(text, count):
    assert parse_budget(text, CPU) == count


@pytest.mark.parametrize("text", ["", "GiB", "8", "-1GB", "8 TB", "automatic"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(RecipeInvalid):
        parse_budget(text, CPU)


def test_spare_memory_is_spent_on_speed():
    plan = make_plan(Recipe.of("Llama-3.1-8B-Instruct"), hardware=H200)
    assert plan.fits
    assert plan.strategy.engine == "fused"
    assert plan.strategy.levels == (Level.ALL,) * 32
    assert plan.strategy.resident_layers == 32
    assert plan.strategy.attention == "cudnn"
    assert plan.strategy.micro_batch == 2
    assert len(plan.rungs) == 1


def test_a_small_card_recomputes_and_then_halves_the_batch():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", batch_size=32, gradient_accumulation_steps=1)
    plan = make_plan(recipe, hardware=T4)
    assert plan.fits
    assert min(plan.strategy.levels) < Level.ALL
    assert not plan.strategy.gradient_checkpointing
    assert plan.strategy.micro_batch < 32
    assert plan.strategy.effective_batch == 32
    assert "is too much for" in plan.rungs[0]
    assert "fits" in plan.rungs[-1]
    assert plan.strategy.dtype == "float16"


def test_checkpointing_that_is_off_stays_off():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", gradient_checkpointing="off", memory_budget="13GiB")
    plan = make_plan(recipe, hardware=H200)
    assert set(plan.strategy.levels) == {Level.ALL}
    assert plan.strategy.micro_batch == 1


def test_checkpointing_that_is_on_keeps_nothing_even_where_there_is_room():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", gradient_checkpointing="on")
    plan = make_plan(recipe, hardware=H200)
    assert set(plan.strategy.levels) == {Level.NOTHING}
    assert plan.strategy.resident_layers == 0
    assert plan.strategy.micro_batch == 2


def test_more_memory_never_makes_a_slower_plan():
    recipe = Recipe.of("Llama-3.1-8B-Instruct")
    before = None
    for tenths in range(72, 360, 8):
        budget = {"memory_budget": f"{tenths / 10}GiB"}
        now = make_plan(recipe.with_values(budget), hardware=Hardware.of("H100"))
        assert now.fits
        assert list(now.strategy.levels) == sorted(now.strategy.levels)
        if before is not None and before.strategy.micro_batch == now.strategy.micro_batch:
            assert sum(now.strategy.levels) >= sum(before.strategy.levels)
            assert now.strategy.resident_layers >= before.strategy.resident_layers
        if before is not None:  # a larger micro-batch may cost a little
            limit = 1.03 * before.forecast.seconds_per_step
            assert now.forecast.seconds_per_step <= limit
        before = now


def test_a_smaller_micro_batch_is_taken_where_it_is_faster():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", memory_budget="12GiB")
    alone = Hardware.of("H100").model_copy(update={"host_memory": 2**20})
    plan = make_plan(recipe, hardware=alone)
    large = make_plan(
        recipe.with_values({"batch_size": 1, "gradient_accumulation_steps": 8}), hardware=alone
    )
    assert plan.strategy == large.strategy
    assert plan.strategy.micro_batch == 1
    short = recipe.with_values({"max_seq_length": 256, "memory_budget": "8GiB"})
    assert make_plan(short, hardware=Hardware.of("H100")).strategy.micro_batch == 2


def test_one_rung_more_would_not_fit():
    """The ladder's order is monotone, so that searching it by halves finds the first that fits."""
    recipe = Recipe.of("Llama-3.2-3B-Instruct", memory_budget="5GiB")
    plan = make_plan(recipe, hardware=H200)
    levels = list(plan.strategy.levels)
    last_lower = max(i for i, level in enumerate(levels) if level < max(levels))
    levels[last_lower] = Level(levels[last_lower] + 1)
    shape = load_shape(recipe.model)
    richer = plan.strategy.model_copy(update={"levels": tuple(levels)})
    for chunk in (None, 1024):
        tried = richer.model_copy(update={"loss_chunk": chunk})
        assert not make_forecast(recipe, shape, tried, H200, plan.forecast.budget).fits


# -------------------------------------------------------------------------------------- offload

CAPS = [  # the best rival's peak, see benchmarks/NOTES.md
    ("Llama-3.2-1B-Instruct", 2, 2048, "1.59GiB"),
    ("Llama-3.2-3B-Instruct", 2, 2048, "3.00GiB"),
    ("Llama-3.1-8B-Instruct", 2, 2048, "6.74GiB"),
    ("Llama-3.1-8B-Instruct", 1, 8192, "7.42GiB"),
]


def capped(model: str, rows: int, length: int, budget: str, **more) -> Recipe:
    more = {"gradient_accumulation_steps": 1, **more}
    return Recipe.of(model, batch_size=rows, max_seq_length=length, memory_budget=budget, **more)


@pytest.mark.parametrize("case", CAPS)
def test_all_rows_fit_under_the_rivals_peaks(case):
    plan = make_plan(capped(*case), hardware=H200)
    assert plan.fits
    assert plan.strategy.micro_batch == case[1]
    assert 0 < plan.strategy.offloaded_layers <= len(plan.strategy.levels) - 2
    assert f"of {plan.strategy.offloaded_layers} layers wait in the host's" in plan.rungs[-1]
    assert "of the computer's own memory" in plan.summary()


def test_what_costs_nothing_is_offloaded_first_and_no_more_than_needed():
    shape = load_shape(capped(*CAPS[2]).model)
    data = DataSize(rows=100, mean_length=2048, max_length=2048)
    seen = set()
    for hundredths in range(560, 1300, 30):
        recipe = capped(*CAPS[2][:3], f"{hundredths / 100}GiB")
        plan = make_plan(recipe, hardware=H200, data=data)
        strategy = plan.strategy
        assert plan.fits
        assert strategy.host_embedding
        seen.add((strategy.offloaded_layers, bool(strategy.mlp_tile)))
        if min(strategy.levels) < Level.ATTENTION or strategy.mlp_tile:
            assert strategy.offloaded_layers == 30
        elif 0 < strategy.offloaded_layers < 30:
            fewer = strategy.model_copy(
                update={"offloaded_layers": strategy.offloaded_layers - 1, "loss_chunk": 1024}
            )
            assert not make_forecast(recipe, shape, fewer, H200, plan.forecast.budget, data).fits
    assert {(30, False), (30, True)} < seen
    assert any(0 < layers < 30 for layers, _ in seen)


@pytest.mark.parametrize("free", [None, 2**20])
def test_the_input_embedding_goes_to_a_host_that_has_room_and_comes_with_the_forecast(free):
    hardware = H200.model_copy(update={"host_memory": free})
    table = 128256 * 4096 * 2
    plan = make_plan(capped(*CAPS[2][:3], "12GiB"), hardware=hardware)
    assert plan.strategy.host_embedding == (free is None)
    assert (plan.forecast.host >= table) == (free is None)
    assert ("the input embedding take" in plan.summary()) == (free is None)
    assert not make_plan(capped(*CAPS[2][:3], "auto"), hardware=hardware).strategy.host_embedding
    tied = make_plan(capped(*CAPS[1]), hardware=hardware)
    assert not tied.strategy.host_embedding  # the output head needs it on the device


def test_a_lookup_over_the_link_takes_its_time():
    recipe = capped(*CAPS[2][:3], "12GiB")
    shape = load_shape(recipe.model)
    data = DataSize(rows=100, mean_length=2048, max_length=2048)
    away = make_plan(recipe, hardware=H200).strategy
    forecasts = [
        make_forecast(recipe, shape, one, H200.model_copy(update={"link": 1e9}), GIB, data)
        for one in (away, away.model_copy(update={"host_embedding": False}))
    ]
    rows = 2 * 2048 * 4096 * 2
    longer = forecasts[0].seconds_per_step - forecasts[1].seconds_per_step
    assert longer == pytest.approx(rows / 1e9)
    saved = forecasts[1].total - forecasts[0].total
    assert saved == pytest.approx(128256 * 4096 * 2, rel=0.01)


@pytest.mark.parametrize(
    ("model", "rows", "length"),
    [
        ("Llama-3.2-1B-Instruct", 2, 2048),
        ("Llama-3.1-8B-Instruct", 1, 8192),
        ("Qwen3-0.6B", 8, 512),
        ("gemma-2-2b-it", 2, 1024),
    ],
)
@pytest.mark.parametrize("host_layers", [0, 3, 100])
def test_each_rung_below_nothing_kept_needs_no_more_than_the_one_before(
    model, rows, length, host_layers
):
    """Device memory falls from rung to rung, so that halving finds the first that fits."""
    recipe = capped(model, rows, length, "auto")
    shape = load_shape(recipe.model)
    base = make_plan(recipe, hardware=H200, shape=shape).strategy
    ladder = _Ladder(base, shape, recipe, pinnable=host_layers)
    rungs = [ladder[rung] for rung in range(1 + ladder.last - ladder.first, len(ladder))]
    assert all(set(rung.levels) == {Level.NOTHING} for rung in rungs)
    needed = [make_forecast(recipe, shape, rung, H200, GIB).total for rung in rungs]
    assert needed == sorted(needed, reverse=True)
    offloaded = [rung.offloaded_layers for rung in rungs]
    assert offloaded == sorted(offloaded)
    assert max(offloaded) == min(host_layers, shape.num_hidden_layers - 2)


def test_what_tiles_save_too_much_is_kept():
    recipe = capped(*CAPS[1])
    plan = make_plan(recipe, hardware=H200)
    strategy = plan.strategy
    assert strategy.mlp_tile
    assert Level.NOTHING in strategy.levels
    assert max(strategy.levels) > Level.NOTHING
    one_more = list(strategy.levels)
    one_more[strategy.levels.count(Level.NOTHING) - 1] = Level.RESIDUAL
    richer = strategy.model_copy(update={"levels": tuple(one_more), "loss_chunk": 1024})
    forecast = make_forecast(recipe, load_shape(recipe.model), richer, H200, plan.forecast.budget)
    assert not forecast.fits


def test_half_of_the_free_host_memory_bounds_what_is_pinned():
    recipe = capped(*CAPS[1], gradient_checkpointing="on")
    for free in (2**20, 200 * 2**20, 64 * GIB, None):
        plan = make_plan(recipe, hardware=H200.model_copy(update={"host_memory": free}))
        allowed = (H200.total_memory if free is None else free) // 2
        assert plan.forecast.host <= allowed
        if plan.strategy.micro_batch == 2:
            assert plan.strategy.offloaded_layers == min(26, allowed // (32 * 2**20))
    assert make_plan(recipe, hardware=CPU).forecast.host == 0


def test_nothing_is_offloaded_where_everything_is_to_be_kept():
    plan = make_plan(capped(*CAPS[2], gradient_checkpointing="off"), hardware=H200)
    assert not plan.fits
    assert plan.strategy.offloaded_layers == 0


def test_a_slow_link_makes_an_offloaded_step_slower_and_a_fast_one_does_not():
    recipe = capped(*CAPS[2])
    shape = load_shape(recipe.model)
    fast, slow = (H200.model_copy(update={"link": rate}) for rate in (44e9, 2e9))
    offloaded = make_plan(recipe, hardware=fast).strategy
    offloaded = offloaded.model_copy(update={"host_embedding": False, "offloaded": "inputs"})
    at_home = offloaded.model_copy(update={"offloaded_layers": 0})

    def seconds(strategy, hardware):
        data = DataSize(rows=100, mean_length=2048, max_length=2048)
        return make_forecast(recipe, shape, strategy, hardware, GIB, data).seconds_per_step

    assert seconds(offloaded, fast) == pytest.approx(seconds(at_home, fast), rel=1e-9)
    copy = 2 * 2048 * 4096 * 2 / 2e9
    added = seconds(offloaded, slow) - seconds(at_home, slow)
    assert 0.5 * 2 * 30 * copy < added < 2 * 30 * copy


def test_attention_is_not_made_again_where_its_output_can_wait_in_the_host():
    for case in CAPS[2:]:
        plan = make_plan(capped(*case), hardware=H200)
        assert min(plan.strategy.levels) >= Level.OUTPUT
        assert plan.strategy.offloaded in ("output", "attention")
        alone = make_plan(capped(*case), hardware=H200.model_copy(update={"host_memory": 2**20}))
        assert min(alone.strategy.levels) < Level.OUTPUT


def test_the_slower_the_link_the_less_waits_in_the_host():
    plans = [
        make_plan(capped(*CAPS[3]), hardware=H200.model_copy(update={"link": link}))
        for link in (200e9, 30e9, 20e9, 5e9)
    ]
    host = [plan.forecast.host for plan in plans]
    assert host == sorted(host, reverse=True)
    assert host[0] > host[1] > host[3]
    assert plans[0].strategy.offloaded == "attention"
    assert plans[3].strategy.offloaded == "inputs"
    seconds = [plan.forecast.seconds_per_step for plan in plans]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("model", "card", "changes", "by_hand"),
    [
        ("Llama-3.2-1B-Instruct", "H200", {}, True),
        ("Llama-3.2-1B-Instruct", "A100", {}, True),
        ("gemma-2-2b-it", "A100", {}, True),
        ("gemma-2-2b-it", "T4", {}, False),
        ("Llama-3.2-1B-Instruct", "T4", {}, False),
        ("Llama-3.2-1B-Instruct", "H200", {"packing": True}, False),
        ("Llama-3.2-1B-Instruct", "H200", {"dtype": "float32"}, False),
        ("gemma-3-1b-it", "H200", {}, False),
    ],
)
def test_an_output_without_q_k_and_v_is_on_the_ladder_where_no_graph_holds_them(
    model, card, changes, by_hand
):
    recipe = capped(model, 2, 1024, "auto", **changes)
    shape, hardware = load_shape(recipe.model), Hardware.of(card)
    base = make_plan(recipe, hardware=hardware, shape=shape).strategy
    ladder = _Ladder(base, shape, recipe)
    assert (Level.OUTPUT in ladder.levels) == by_hand
    assert any(Level.OUTPUT in rung.levels for rung in ladder) == by_hand
    assert ladder[-1].levels == (Level.NOTHING,) * shape.num_hidden_layers
    alike = (Level.RESIDUAL,) * shape.num_hidden_layers
    forecasts = [
        make_forecast(recipe, shape, base.model_copy(update={"levels": levels}), hardware, GIB)
        for levels in (alike, (Level.OUTPUT,) * shape.num_hidden_layers)
    ]
    assert (forecasts[0].total < forecasts[1].total) == by_hand
    assert (forecasts[0].seconds_per_step > forecasts[1].seconds_per_step) == by_hand


def test_running_out_of_memory_goes_through_offload_to_smaller_batches():
    recipe = capped("Llama-3.1-8B-Instruct", 2, 1000, "40GiB")
    shape = load_shape(recipe.model)
    plans = [make_plan(recipe, hardware=H200, shape=shape)]
    while (smaller := step_down(plans[-1], recipe, shape)) is not None:
        plans.append(smaller)
    assert not plans[0].strategy.offloaded_layers
    assert any(p.strategy.offloaded_layers and p.strategy.micro_batch > 1 for p in plans)
    assert plans[-1].strategy.offloaded_layers == 30
    assert plans[-1].strategy.micro_batch == 1


@pytest.mark.parametrize(
    ("changes", "card", "engine"),
    [
        ({}, "T4", "fused"),
        ({"bits": 8}, "H100", "fused"),
        ({"bits": 16}, "H100", "fused"),
        ({}, "P100", "stock"),
    ],
)
def test_the_engine_is_chosen_by_what_it_can_run(changes, card, engine):
    recipe = Recipe.of("Llama-3.2-1B-Instruct", **changes)
    assert make_plan(recipe, hardware=Hardware.of(card)).strategy.engine == engine
    assert make_plan(recipe, hardware=CPU).strategy.engine == "stock"


@pytest.mark.parametrize(("card", "kernel"), [("T4", "eager"), ("A100", "capped")])
def test_scores_with_a_softcap_are_held_only_where_no_kernel_runs(card, kernel):
    recipe = Recipe.of("gemma-2-2b-it", max_seq_length=4096)
    plan = make_plan(recipe, hardware=Hardware.of(card))
    assert plan.strategy.engine == "fused"
    assert plan.strategy.attention == kernel
    in_full = plan.strategy.model_copy(update={"attention": "eager"})
    forecast = make_forecast(recipe, load_shape(recipe.model), in_full, plan.hardware, 2**40)
    assert (forecast.total > 1.3 * plan.forecast.total) == (kernel == "capped")


def test_the_stock_engine_can_be_asked_for():
    recipe = Recipe.of("Llama-3.2-1B-Instruct")
    plan = make_plan(recipe, hardware=H200, engine="stock")
    assert plan.strategy.levels == ()
    assert plan.strategy.attention == "sdpa"


@pytest.mark.parametrize("hardware", [CPU, H200], ids=["cpu", "gpu"])
def test_stepping_down_ends_and_keeps_the_effective_batch(hardware):
    recipe = Recipe.of("Llama-3.2-1B-Instruct", batch_size=4)
    shape = load_shape(recipe.model)
    plan = make_plan(recipe, hardware=hardware, shape=shape)
    seen = [plan]
    while (smaller := step_down(seen[-1], recipe, shape)) is not None:
        assert smaller.forecast.total < seen[-1].forecast.total
        assert smaller.strategy.effective_batch == recipe.effective_batch
        assert smaller.strategy.engine == plan.strategy.engine
        assert smaller.strategy.micro_batch <= seen[-1].strategy.micro_batch
        seen.append(smaller)
        assert len(seen) < 100
    assert seen[-1].strategy.micro_batch == 1


def test_a_strategy_says_what_it_does():
    base = make_plan(Recipe.of("Llama-3.2-1B-Instruct"), hardware=H200).strategy

    def words(**changes):
        return base.model_copy(update=changes).spending()

    assert words() == ["keeps everything", "weights stay unpacked"]
    assert words(levels=(Level.NOTHING,) * 16, resident_layers=0) == ["keeps only the inputs"]
    mixed = (Level.ATTENTION,) * 15 + (Level.GATE_UP,)
    assert words(levels=mixed, resident_layers=3, loss_chunk=512) == [
        "keeps attention and MLP of 1 layer",
        "keeps attention of 15 layers",
        "weights stay unpacked in 3 layers",
        "loss by 512 tokens",
    ]
    small = {"levels": (Level.NOTHING,) * 16, "resident_layers": 0}
    assert words(**small, offloaded_layers=14, mlp_tile=1024) == [
        "keeps only the inputs",
        "inputs of 14 layers wait in the host's memory",
        "MLP by 1024 tokens",
    ]
    assert make_plan(Recipe(), hardware=CPU).strategy.spending() == ["keeps activations"]


@pytest.mark.parametrize(
    ("hardware", "dtype", "optimizer"),
    [
        (CPU, "float32", "adamw_torch"),
        (T4, "float16", "adamw_8bit"),
        (H200, "bfloat16", "adamw_8bit"),
    ],
)
def test_auto_is_resolved_by_the_device(hardware, dtype, optimizer):
    strategy = make_plan(Recipe.of("SmolLM2-135M-Instruct"), hardware=hardware).strategy
    assert (strategy.dtype, strategy.optimizer) == (dtype, optimizer)


def test_the_adapter_is_float32_unless_asked_otherwise():
    def resolved(hardware, **values):
        recipe = Recipe.of("SmolLM2-135M-Instruct", **values)
        return make_plan(recipe, hardware=hardware).strategy.adapter_dtype

    asked = {"lora.adapter_dtype": "bfloat16"}
    assert resolved(H200) == resolved(CPU) == resolved(T4) == "float32"
    assert resolved(H200, **asked) == resolved(CPU, **asked) == "bfloat16"
    with pytest.raises(RecipeInvalid, match=r"lora\.adapter_dtype"):
        resolved(T4, **asked)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 24), st.integers(1, 8), st.sampled_from(["2GiB", "3GiB", "6GiB", "40GiB"]))
def test_the_effective_batch_is_never_changed(batch_size, accumulation, budget):
    recipe = Recipe.of(
        "Llama-3.2-1B-Instruct",
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        memory_budget=budget,
    )
    plan = make_plan(recipe, hardware=H200)
    assert plan.strategy.effective_batch == recipe.effective_batch
    assert plan.fits == (plan.forecast.total <= plan.forecast.budget)


def test_what_does_not_fit_says_what_would():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", bits=16, memory_budget="8GiB")
    plan = make_plan(recipe, hardware=H200)
    assert not plan.fits
    with pytest.raises(DoesNotFit) as caught:
        require_fit(plan)
    error = caught.value
    assert "8.00 GiB" in error.what
    assert "`quantization.bits` to 4" in error.do
    needed = error.do.rsplit('"', 2)[1]
    assert parse_budget(needed, H200) >= plan.forecast.total
    enough = make_plan(recipe.with_values({"memory_budget": needed}), hardware=H200)
    assert require_fit(enough) is enough


def test_every_advice_is_true():
    recipe = Recipe.of("Llama-3.1-8B-Instruct", max_seq_length=32768, memory_budget="8GiB")
    plan = make_plan(recipe, hardware=H200)
    lengths = [
        int(found[1]) for item in plan.advice if (found := re.search(r"length` to (\d+)", item))
    ]
    assert lengths
    for length in lengths:
        assert make_plan(recipe.with_values({"max_seq_length": length}), hardware=H200).fits


def test_a_plan_survives_its_file(tmp_path):
    data = DataSize(rows=1000, mean_length=200.5, max_length=900)
    plan = make_plan(Recipe.of("Qwen3-0.6B"), hardware=T4, data=data)
    path = plan.save(tmp_path / "plan.json")
    assert Plan.load(path) == plan
    assert plan.schema_version == 1
    path.write_text('{"schema_version": 99}')
    with pytest.raises(RecipeInvalid):
        Plan.load(path)


def test_the_file_of_a_plan_has_a_line_for_all_layers_and_old_files_load(tmp_path):
    plan = make_plan(Recipe.of("Llama-3.2-1B-Instruct"), hardware=H200)
    path = plan.save(tmp_path / "plan.json")
    text = path.read_text()
    assert f'"levels": [{", ".join(["5"] * 16)}]' in text
    old = json.loads(text)
    for name in ("engine", "levels", "resident_layers", "loss_chunk", "offloaded_layers"):
        del old["strategy"][name]
    for part, name in (("hardware", "link"), ("hardware", "host_memory"), ("forecast", "host")):
        del old[part][name]
    path.write_text(json.dumps(old))
    assert Plan.load(path).strategy.engine == "stock"


def test_the_summary_names_memory_and_time():
    data = DataSize(rows=1000, mean_length=200, max_length=900)
    text = make_plan(Recipe.of("Qwen3-0.6B"), hardware=T4, data=data).summary()
    assert "of 13.05 GiB: fits" in text
    assert "for 125 steps" in text
    assert 3 <= len(text.splitlines()) <= 6
