"""What an optimizer is forecast to keep is what it keeps."""

from __future__ import annotations

import pytest

from tunebook.models.catalog import find
from tunebook.plan import Hardware, make_plan
from tunebook.plan.optimizers import _AVERAGES, state_bytes, states_known
from tunebook.recipe import Recipe

H200 = Hardware.of("H200")
COUNTED = sorted({*_AVERAGES, "adafactor"} - {"adamw_torch_xla", "adamw_torch_npu_fused"})
SHARED = ("step", "RMS", "qmap1", "qmap2")  # one number, or a table that all tensors share


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", COUNTED)
def test_states_are_those_of_the_optimizer(name, dtype, tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(str(tmp_path), optim=name, use_cpu=True, report_to="none")
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    width = {"float32": 4, "bfloat16": 2}[dtype]
    for rows, columns in ((16, 300), (16, 255), (8, 64)):  # above, just below, far below 8 bit's
        matrix = torch.nn.Parameter(torch.ones(rows, columns, dtype=getattr(torch, dtype)))
        optimizer = kind([matrix], **options)
        matrix.grad = torch.ones_like(matrix)
        optimizer.step()
        kept = sum(
            value.nbytes
            for state, value in optimizer.state[matrix].items()
            if isinstance(value, torch.Tensor) and state not in SHARED
        )
        assert state_bytes(name, rows, columns, width) == kept, (rows, columns)


@pytest.mark.parametrize("engine", ["stock", "fused"])
def test_the_forecast_follows_the_optimizer(engine):
    def parts(name, **values):
        recipe = Recipe.of("Llama-3.2-1B-Instruct", optimizer=name, memory_budget="60GiB", **values)
        return make_plan(recipe, hardware=H200, engine=engine).forecast.parts

    entry = find("Llama-3.2-1B-Instruct")
    assert entry is not None
    weights = entry.shape.lora_parameters(Recipe().lora)
    sizes = {name: parts(name)["optimizer"] / weights for name in COUNTED}
    assert sizes["sgd"] == 0
    assert 0 < sizes["adafactor"] < 1
    assert sizes["lion_8bit"] == pytest.approx(1, rel=0.03)
    assert sizes["lion_32bit"] == pytest.approx(4)
    assert sizes["paged_adamw_8bit"] == pytest.approx(2, rel=0.03)
    assert sizes["adamw_torch"] == sizes["paged_adamw_32bit"] == pytest.approx(8)
    assert sizes["ademamix"] == pytest.approx(12)
    half = {"lora.adapter_dtype": "bfloat16"}
    assert parts("adamw_torch", **half)["optimizer"] / weights == pytest.approx(4)
    assert parts("paged_adamw_32bit", **half)["optimizer"] / weights == pytest.approx(8)


def test_what_is_not_known_is_counted_as_adamw_and_says_so():
    def plan(name):
        return make_plan(Recipe.of("SmolLM2-135M-Instruct", optimizer=name), hardware=H200)

    assert not states_known("stable_adamw")
    known, unknown = plan("adamw_torch"), plan("stable_adamw")
    assert unknown.forecast.parts == known.forecast.parts
    assert known.notes == []
    assert "stable_adamw" in unknown.notes[0]
    assert f"note    {unknown.notes[0]}" in unknown.summary()
