"""What matrices meet in calibration is summed up truly, leaves the model alone, and lies in a file."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch.nn import functional as F

from tunebook import engine
from tunebook.errors import Cancelled, FileInvalid, SourceMissing
from tunebook.export import Importance, Progress, load_imatrix, measure_importance, save_imatrix
from tunebook.export.gguf.architectures import architecture_of
from tunebook.export.gguf.importance import Moments, batches
from tunebook.export.gguf.tensors import FileTensor, file_tensors
from tunebook.export.gguf_header import read_gguf
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart


def tensors_of(model: Any) -> list[FileTensor]:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return list(file_tensors(base, *architecture_of(base.config)))


def some_rows(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(10, 2000, (length,), generator=generator).tolist() for length in (9, 3, 14)
    ]


def tuned(bits: int = 16) -> Any:
    model = add_lora(load_model(ModelPart(), QuantizationPart(bits=bits)), LoraPart(r=4), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            generator = torch.Generator(parameter.device).manual_seed(2)
            parameter.data.normal_(std=0.02, generator=generator)
    return model


def by_row(model: Any, rows: list[list[int]], meet: Any) -> None:
    """Each row alone, without padding; `meet(module name, input, output)` of every linear layer."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    handles = [
        module.register_forward_hook(lambda m, x, y, name=name: meet(name, x[0], y))
        for name, module in base.named_modules()
        if name.endswith(("_proj", "lm_head"))
    ]
    for row in rows:
        model(input_ids=torch.tensor([row], device=model.device))
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("bits", [16, 4])
def test_columns_are_mean_squares_of_what_each_layer_met(bits: int) -> None:
    model = tuned(bits)
    rows = some_rows()
    importance = measure_importance(model, tensors_of(model), rows)
    sums: dict[str, torch.Tensor] = {}

    def meet(name: str, x: torch.Tensor, _: torch.Tensor) -> None:
        squares = x.detach().double().square().sum((0, 1)).cpu()
        sums[name] = sums.get(name, torch.zeros(())) + squares

    model.eval()
    by_row(model, rows, meet)
    places = {
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj",
        "blk.5.ffn_down.weight": "model.layers.5.mlp.down_proj",
        "token_embd.weight": "lm_head",  # tied: it counts as the output matrix
    }
    tokens = sum(map(len, rows))
    assert importance.tokens == tokens
    for name, place in places.items():
        torch.testing.assert_close(
            importance.columns()[name], (sums[place] / tokens).float(), rtol=1e-3, atol=1e-6
        )


def test_rows_are_mean_squares_of_the_gradient_for_the_models_own_labels() -> None:
    """Over all labels there are the mean is known: of the head, p (1 - p)."""
    model = tiny_model("qwen3")
    for parameter in model.parameters():
        parameter.data *= 1.5  # so that it is sure of some tokens
    rows = some_rows()
    model.eval()
    draws = 400
    importance = measure_importance(model, tensors_of(model), rows * draws, batch=8192)
    wanted = torch.zeros(model.config.vocab_size, dtype=torch.float64)
    with torch.no_grad():
        for row in rows:
            p = model(torch.tensor([row], device=model.device)).logits[0].softmax(-1).double()
            wanted += (p * (1 - p)).sum(0)
    moments = importance.tensors["output.weight"]
    assert moments.rows is not None
    found = moments.rows[0] / draws
    likely = wanted > 0.05
    assert int(likely.sum()) > 10
    torch.testing.assert_close(found[likely], wanted[likely], rtol=0.5, atol=0)
    assert float(found.sum()) == pytest.approx(float(wanted.sum()), rel=0.03)


def test_rows_of_paired_heads_are_in_the_files_order() -> None:
    model = tiny_model("llama-3.1")
    tensor = next(t for t in tensors_of(model) if t.name == "blk.0.attn_q.weight")
    assert tensor.source is not None
    seen: list[torch.Tensor] = []
    layer = model.model.layers[0].self_attn.q_proj

    def hook(_: Any, __: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda g: seen.append(g[0].double().square().sum(0)))

    handle = layer.register_forward_hook(hook)
    importance = measure_importance(model, tensors_of(model), [some_rows()[0]])
    handle.remove()
    rows = importance.tensors[tensor.name].rows
    assert rows is not None
    torch.testing.assert_close(rows[0], tensor.source.turn(seen[0]))
    assert not torch.allclose(rows[0], seen[0])


def test_experts_are_measured_one_by_one() -> None:
    model = tiny_model("mixtral")
    rows = some_rows()
    importance = measure_importance(model, tensors_of(model), rows)
    module = model.model.layers[1].mlp.experts
    columns = {"up": torch.zeros(4, 256), "down": torch.zeros(4, 256)}
    counts = torch.zeros(4)

    def hook(_: Any, given: tuple[Any, ...], __: Any) -> None:
        states, index, _scores = given
        for token, chosen in enumerate(index):
            for expert in chosen.tolist():
                x = states[token]
                gate, up = F.linear(x, module.gate_up_proj[expert]).chunk(2)
                columns["up"][expert] += x.square()
                columns["down"][expert] += (module.act_fn(gate) * up).square()
                counts[expert] += 1

    handle = module.register_forward_hook(hook)
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row], device=model.device))
    handle.remove()
    for role, wanted in columns.items():
        moments = importance.tensors[f"blk.1.ffn_{role}_exps.weight"]
        assert torch.equal(moments.counts, counts.double())
        torch.testing.assert_close(moments.columns.float(), wanted, rtol=1e-4, atol=1e-4)
        assert moments.rows is not None
        assert bool((moments.rows.sum(1) > 0).all())


def test_the_gradient_of_experts_is_that_of_autograd() -> None:
    """With one expert chosen of one, what is computed again must be what the model has."""
    model = tiny_model("mixtral", num_local_experts=1, num_experts_per_tok=1)
    row = some_rows()[0]
    importance = measure_importance(model, tensors_of(model), [row], seed=3)
    module = model.model.layers[1].mlp.experts
    told: list[torch.Tensor] = []
    handle = module.register_forward_hook(
        lambda _, __, output: (output.register_hook(lambda g: told.append(g)), None)[1]
    )
    measure_importance(model, tensors_of(model), [row], seed=3)
    handle.remove()
    down = importance.tensors["blk.1.ffn_down_exps.weight"].rows
    assert down is not None
    torch.testing.assert_close(down[0].float(), told[0].reshape(-1, 256).square().sum(0))


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tuned()
    engine.patch(model, device="any")
    assert engine.report(model).swapped  # type: ignore[union-attr]
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    before = [(p.requires_grad, p.grad) for p in model.parameters()]
    forwards = [m.__dict__.get("forward") for m in model.modules()]

    def same() -> None:
        assert all(module.training for module in model.modules() if "lora" in str(type(module)))
        now = [(p.requires_grad, p.grad) for p in model.parameters()]
        assert all(a[0] == b[0] and a[1] is b[1] for a, b in zip(before, now, strict=True))
        assert [m.__dict__.get("forward") for m in model.modules()] == forwards
        assert not any(m._forward_hooks for m in model.modules())

    importance = measure_importance(model, tensors_of(model), some_rows())
    assert len(importance.tensors) == 6 * 7 + 1
    same()
    monkeypatch.setattr(torch, "multinomial", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_importance(model, tensors_of(model), some_rows())
    same()


def test_a_stop_is_heeded() -> None:
    import threading

    stop = threading.Event()
    stop.set()
    model = tiny_model("qwen3")
    with pytest.raises(Cancelled):
        measure_importance(model, tensors_of(model), some_rows(), progress=Progress(None, stop))


def test_batches_hold_every_token_once() -> None:
    rows = [[1, 2, 3], [4], [5, 6], [7] * 50, []]
    got = []
    for ids, mask in batches(rows, 8, torch.device("cpu")):
        assert ids.shape == mask.shape
        assert ids.numel() <= 8 or len(ids) == 1
        got += [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    assert sorted(got) == sorted(row for row in rows if row)


def small_importance() -> Importance:
    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))).double()

    return Importance(
        {
            "blk.0.attn_q.weight": Moments(numbers(1, 256), torch.tensor([7.0]), numbers(1, 64)),
            "blk.0.ffn_up_exps.weight": Moments(
                numbers(4, 256), torch.tensor([3.0, 0, 5, 2]), numbers(4, 8)
            ),
        },
        Moments(numbers(1, 16), torch.tensor([9.0]), torch.arange(12.0)[None].double()),
        tokens=9,
        datasets=("mine", "general"),
        chunks=3,
        chunk=5,
    )


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    importance = small_importance()
    back = load_imatrix(save_imatrix(importance, tmp_path / "a" / "im.gguf"))
    assert (back.tokens, back.datasets, back.chunks, back.chunk) == (9, ("mine", "general"), 3, 5)
    assert back.has_gradients
    pairs = [(importance.tensors[name], own) for name, own in back.tensors.items()]
    assert len(pairs) == 2
    assert importance.lookups is not None
    assert back.lookups is not None
    for one, other in [*pairs, (importance.lookups, back.lookups)]:
        for key in ("columns", "rows"):
            torch.testing.assert_close(getattr(one, key).float(), getattr(other, key).float())
    assert back.columns()["blk.0.attn_q.weight"].shape == (256,)
    assert bool((back.columns()["blk.0.ffn_up_exps.weight"][1] == 1).all())  # it met no token


def test_the_file_is_laid_out_as_llama_cpps(tmp_path: Path) -> None:
    header = read_gguf(save_imatrix(small_importance(), tmp_path / "im.gguf"))
    assert header.values["general.type"] == "imatrix"
    assert header.values["imatrix.chunk_count"] == 3
    assert header.values["imatrix.chunk_size"] == 5
    shapes = {t.name: (t.type, t.shape) for t in header.tensors}
    assert shapes["blk.0.ffn_up_exps.weight.in_sum2"] == ("F32", (4, 256))
    assert shapes["blk.0.ffn_up_exps.weight.counts"] == ("F32", (4, 1))


def legacy(entries: dict[str, tuple[int, list[float]]]) -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode()
        data += struct.pack("<ii", calls, len(values)) + struct.pack(f"<{len(values)}f", *values)
    return data + struct.pack("<i", 12) + struct.pack("<i", 4) + b"wiki"


def test_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy({"blk.0.attn_q.weight": (4, [8.0, 2.0])}))
    importance = load_imatrix(path)
    assert importance.columns()["blk.0.attn_q.weight"].tolist() == [2.0, 0.5]
    assert (importance.datasets, importance.chunks) == (("wiki",), 12)
    assert not importance.has_gradients


@pytest.mark.parametrize("data", [b"", b"hello, this is text", legacy({"a": (1, [1.0])})[:20]])
def test_what_is_no_imatrix_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(data)
    with pytest.raises(FileInvalid):
        load_imatrix(path)


def test_a_missing_file_and_another_models_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        load_imatrix(tmp_path / "none.gguf")
    wide = Importance.of_columns({"blk.0.attn_q.weight": torch.ones(512)})
    with pytest.raises(FileInvalid, match="1 x 512 columns"):
        wide.require_fits(tensors_of(tiny_model("qwen3")))
    other = Importance.of_columns({"blk.0.ssm_in.weight": torch.ones(512)})
    with pytest.raises(FileInvalid, match="ssm_in"):
        other.require_fits(tensors_of(tiny_model("qwen3")))


def test_theirs_columns_go_beside_our_gradients() -> None:
    ours = small_importance()
    name = "blk.0.attn_q.weight"
    both = ours.with_columns_of(Importance.of_columns({name: torch.full((256,), 3.0)}))
    assert bool((both.columns()[name] == 3).all())
    assert both.has_gradients
    assert math.isclose(
        float(both.columns()["blk.0.ffn_up_exps.weight"].sum()),
        float(ours.columns()["blk.0.ffn_up_exps.weight"].sum()),
    )
