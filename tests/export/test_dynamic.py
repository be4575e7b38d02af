"""Dynamic mixes: chosen well, measured truly, better than llama.cpp's at the same size, and written."""

from __future__ import annotations

import itertools
import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from tunebook import engine
from tunebook.errors import Cancelled, FileInvalid, FolderExists, RecipeInvalid
from tunebook.export import (
    DynamicReport,
    Importance,
    Progress,
    four_bit_skips,
    linear_tensors,
    load_imatrix,
    measure_importance,
    save_gguf,
    save_imatrix,
    save_merged,
)
from tunebook.export.gguf import choosing, dynamic
from tunebook.export.gguf.architectures import architecture_of, network_of
from tunebook.export.gguf.blocks import dequantize, quantize
from tunebook.export.gguf.calibration import Calibration, calibration, rows_of
from tunebook.export.gguf.divergence import Divergence, Reference, Rounded
from tunebook.export.gguf.dynamic import make_dynamic
from tunebook.export.gguf.judge import LlamaServer
from tunebook.export.gguf.knapsack import choose
from tunebook.export.gguf.mixes import MIXES, Mix, tensor_bytes, tensor_type
from tunebook.export.gguf.report import Choice
from tunebook.export.gguf.rounding_error import estimated_errors
from tunebook.export.gguf.tensors import FileTensor, file_tensors
from tunebook.export.gguf_header import read_gguf
from tunebook.export.progress import Pass
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe


class Measured(SimpleNamespace):
    """The embedded model, its tensors, text to measure on, and what was measured."""

    model: Any
    tokenizer: Any
    tensors: list[FileTensor]
    network: Any
    text: Calibration
    importance: Importance

    def bytes(self, mix: Mix) -> int:
        kinds = (tensor_type(t.name, t.shape, mix, self.network) for t in self.tensors)
        return sum(tensor_bytes(t.shape, k) for t, k in zip(self.tensors, kinds, strict=True))

    def made(self, size: int) -> tuple[Mix, DynamicReport]:
        return make_dynamic(
            self.model, self.tensors, self.network, self.importance, self.text, size
        )


@pytest.fixture(scope="module")
def embedded() -> Measured:
    model = load_model(ModelPart(), QuantizationPart(bits=16))
    tokenizer = load_tokenizer(ModelPart())
    architecture, text = architecture_of(model.config)
    tensors = list(file_tensors(model, architecture, text))
    rows = calibration(tokenizer, tokens=4500)
    return Measured(
        model=model,
        tokenizer=tokenizer,
        tensors=tensors,
        network=network_of(text, tied=True, importance=True),
        text=rows,
        importance=measure_importance(model, tensors, rows.rows, datasets=rows.datasets),
    )


@pytest.fixture(scope="module")
def at_q4_k_m(embedded: Measured) -> tuple[Mix, DynamicReport]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic, "_PROBED_TOKENS", 800)
        return embedded.made(embedded.bytes(MIXES["Q4_K_M"]))


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_that_fits_costs_less(seed: int) -> None:
    rng = random.Random(seed)
    costs = [[rng.random() for _ in range(4)] for _ in range(5)]
    sizes = [[rng.randint(1, 30) * 64 for _ in range(4)] for _ in range(5)]
    limit = rng.randint(20, 80) * 64 + rng.randint(0, 63)
    fitting = [
        sum(own[n] for own, n in zip(costs, numbers, strict=True))
        for numbers in itertools.product(range(4), repeat=5)
        if sum(own[n] for own, n in zip(sizes, numbers, strict=True)) <= limit
    ]
    chosen = choose(costs, sizes, limit)
    if not fitting:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(own[n] for own, n in zip(sizes, chosen, strict=True)) <= limit
    assert sum(own[n] for own, n in zip(costs, chosen, strict=True)) == pytest.approx(min(fitting))


def test_sizes_of_gigabytes_are_chosen_among_quickly_and_nearly_best() -> None:
    rng = random.Random(1)
    sizes = [sorted(rng.randint(10**7, 10**8) for _ in range(9)) for _ in range(300)]
    costs = [sorted((rng.random() for _ in range(9)), reverse=True) for _ in range(300)]
    limit = sum(own[4] for own in sizes)
    chosen = choose(costs, sizes, limit)
    assert chosen is not None
    total = sum(own[n] for own, n in zip(sizes, chosen, strict=True))
    assert total <= limit
    # no choice has less than the least of cost + price * size, whatever the price
    found = sum(own[n] for own, n in zip(costs, chosen, strict=True))
    bound = max(
        sum(
            min(c + price * s for c, s in zip(own, size, strict=True))
            for own, size in zip(costs, sizes, strict=True)
        )
        - price * limit
        for price in (10**-k * m for k in range(7, 10) for m in range(1, 10))
    )
    assert found < 1.05 * bound


def test_weights_that_stay_change_nothing_and_all_is_put_back(embedded: Measured) -> None:
    model = add_lora(load_model(ModelPart(), QuantizationPart(bits=4)), LoraPart(r=4), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            generator = torch.Generator(parameter.device).manual_seed(2)
            parameter.data.normal_(std=0.02, generator=generator)
    engine.patch(model, device="any")
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    base = model.get_base_model()
    tensors = list(file_tensors(base, *architecture_of(base.config)))
    rows = embedded.text.held_out[:4]
    kinds = {t.name: "F32" for t in tensors if len(t.shape) == 2}
    same = Reference(model, rows).divergence(Rounded(model, tensors, kinds, {}))
    assert same.mean < 1e-4  # the merged weights are the adapted layers
    kinds = dict.fromkeys(kinds, "Q4_K")
    rounded = Rounded(model, tensors, kinds, {})
    assert Reference(model, rows).divergence(rounded).mean > 3 * same.mean
    with pytest.raises(ZeroDivisionError), rounded.applied():
        raise ZeroDivisionError
    assert [module.__dict__.get("forward") for module in model.modules()] == forwards


@pytest.mark.parametrize(
    ("family", "only"),
    [("mixtral", ""), ("mixtral", "ffn_up"), ("gemma-2", ""), ("llama with biases", "")],
)
def test_a_rounded_model_is_one_with_those_weights(family: str, only: str) -> None:
    import copy

    model = tiny_model(family)
    tensors = list(file_tensors(model, *architecture_of(model.config)))
    kinds = {
        t.name: "Q4_K"
        for t in tensors
        if len(t.shape) > 1 and "gate_inp" not in t.name and only in t.name
    }
    other = copy.deepcopy(model)
    names = {t.source.weight.name for t in tensors if t.source is not None and t.name in kinds}
    for name, parameter in other.named_parameters():
        if name in names:
            rounded = dequantize(quantize(parameter.data, "Q4_K"), "Q4_K")
            if only:  # the second half of what is stacked
                rounded[:, :256] = parameter.data[:, :256]
            parameter.data = rounded
    ids = torch.randint(10, 2000, (1, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = other(ids).logits
        with Rounded(model, tensors, kinds, {}).applied():
            got = model(ids).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_the_figures_of_a_divergence_are_those_of_its_definition(embedded: Measured) -> None:
    kinds = {"blk.2.ffn_down.weight": "Q2_K"}
    rows = embedded.text.held_out[:3]
    rounded = Rounded(embedded.model, embedded.tensors, kinds, {})
    found = Reference(embedded.model, rows).divergence(rounded)
    gaps, same = [], []
    with torch.no_grad():
        for row in rows:
            p = (
                embedded.model(torch.tensor([row], device=embedded.model.device))
                .logits[0]
                .double()
                .log_softmax(-1)
            )
            with rounded.applied():
                q = (
                    embedded.model(torch.tensor([row], device=embedded.model.device))
                    .logits[0]
                    .double()
                    .log_softmax(-1)
                )
            gaps.append((p.exp() * (p - q)).sum(-1))
            same.append(p.argmax(-1) == q.argmax(-1))
    all_gaps = torch.cat(gaps)
    assert found.tokens == len(all_gaps) == sum(map(len, rows))
    assert found.mean == pytest.approx(float(all_gaps.mean()), rel=0.01)
    assert found.percentile_99 <= float(all_gaps.max()) * 1.01
    assert found.same_top == pytest.approx(float(torch.cat(same).double().mean()))


@pytest.mark.parametrize(
    "name", ["blk.0.attn_v.weight", "blk.5.ffn_up.weight", "token_embd.weight"]
)
def test_the_estimate_foretells_the_divergence(name: str, embedded: Measured) -> None:
    """To second order, in nats: nothing is fitted."""
    tensor = next(t for t in embedded.tensors if t.name == name)

    def rounding(weight: torch.Tensor, kind: str, _: Any) -> torch.Tensor:
        return dequantize(quantize(weight, kind), kind)

    estimate = estimated_errors(tensor, ["Q3_K", "Q5_K"], embedded.importance, rounding)
    assert estimate["Q3_K"] > 5 * estimate["Q5_K"]
    rounded = Rounded(embedded.model, embedded.tensors, {name: "Q3_K"}, {})
    seen = Reference(embedded.model, embedded.text.rows[::2]).divergence(rounded).mean
    assert 0.4 < seen / estimate["Q3_K"] < 2.5


def test_a_tensor_that_nothing_is_known_of_is_not_taken_for_free(embedded: Measured) -> None:
    known = dict(embedded.importance.tensors)
    del known["blk.3.attn_k.weight"]
    less = replace(embedded.importance, tensors=known)
    with pytest.raises(FileInvalid, match=r"blk\.3\.attn_k"):
        make_dynamic(
            embedded.model, embedded.tensors, embedded.network, less, embedded.text, 3_000_000
        )


@pytest.mark.parametrize("role", ["gate", "up", "down"])
def test_the_estimate_holds_for_stacked_experts(role: str) -> None:
    model = tiny_model("mixtral")
    tensors = list(file_tensors(model, *architecture_of(model.config)))
    generator = torch.Generator().manual_seed(4)
    rows = torch.randint(10, 2000, (12, 30), generator=generator).tolist()
    importance = measure_importance(model, tensors, rows)
    name = f"blk.1.ffn_{role}_exps.weight"
    tensor = next(t for t in tensors if t.name == name)

    def rounding(weight: torch.Tensor, kind: str, _: Any) -> torch.Tensor:
        return dequantize(quantize(weight, kind), kind)

    estimate = estimated_errors(tensor, ["Q5_K"], importance, rounding)["Q5_K"]
    seen = Reference(model, rows).divergence(Rounded(model, tensors, {name: "Q5_K"}, {})).mean
    assert 0.6 < seen / estimate < 1.7, seen / estimate


def test_it_is_a_quarter_better_than_llama_cpps_mix_of_the_same_size(
    embedded: Measured, at_q4_k_m: tuple[Mix, DynamicReport]
) -> None:
    mix, report = at_q4_k_m
    limit = embedded.bytes(MIXES["Q4_K_M"])
    assert report.stock_name == "Q4_K_M"
    assert report.stock_bytes == limit
    assert 0.99 * limit < report.bytes == embedded.bytes(mix) <= limit
    assert report.stock is not None
    assert report.dynamic.mean < 0.75 * report.stock.mean
    assert report.uses_dynamic
    assert report.gain is not None
    assert report.gain > 0.25
    assert mix.file_type == MIXES["Q4_K_M"].file_type
    kinds = {choice.name: choice.type for choice in report.tensors}
    assert kinds["token_embd.weight"] in ("Q6_K", "Q8_0")
    assert len(set(kinds.values())) > 3
    assert tensor_type("blk.0.attn_norm.weight", (256,), mix, embedded.network) == "F32"


def test_what_is_no_better_gives_way(embedded: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Divergence] = []

    def ever_better(*_: Any) -> Divergence:
        told.append(Divergence(1.0 / (len(told) + 1), 1, 1, 0.5, 10))
        return told[-1]

    monkeypatch.setattr(dynamic._Analysis, "divergence", ever_better)
    mix, report = embedded.made(embedded.bytes(MIXES["Q4_K_M"]))
    assert mix is MIXES["Q4_K_M"]
    assert not report.uses_dynamic
    assert report.summary.endswith("Q4_K_M is written.")


def test_what_cannot_become_that_small_is_told_how_small_it_can(embedded: Measured) -> None:
    with pytest.raises(RecipeInvalid, match="set `bits` to 3"):
        dynamic._Analysis(
            embedded.model,
            embedded.tensors,
            embedded.network,
            embedded.importance,
            choosing.Progress(),
        ).best({t.name: dict.fromkeys(dynamic._KINDS, 1.0) for t in embedded.tensors}, 1_000_000)


def test_a_report_is_a_file_and_a_picture(
    at_q4_k_m: tuple[Mix, DynamicReport], tmp_path: Path
) -> None:
    from tunebook.widgets import mix_figure

    _, report = at_q4_k_m
    report.save(tmp_path / "a.json")
    assert DynamicReport.load(tmp_path / "a.json") == report
    choice = next(c for c in report.tensors if c.name == "blk.3.ffn_down.weight")
    assert choice.place == (3, "ffn_down")
    assert report.written == report.name
    assert replace(report, uses_dynamic=False).written == "Q4_K_M"
    (heat,) = mix_figure(report).data
    assert list(heat.y) == ["all layers", *(f"layer {n}" for n in range(6))]
    column = list(heat.x).index("ffn_down")
    assert heat.text[4][column] == choice.type
    assert f"{choice.bytes:,} bytes" in heat.customdata[4][column]
    assert heat.z[4][column] == pytest.approx(choice.bits)
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(FileInvalid):
        DynamicReport.load(tmp_path / "b.json")


def test_why_a_type_was_taken_is_told_by_its_neighbours() -> None:
    errors = {"Q3_K": 0.01, "Q4_K": 0.002, "Q6_K": 0.0005, "Q8_0": 0.0001}
    choice = Choice("blk.3.ffn_up.weight", (512, 256), "Q4_K", 73728, "Q4_K", errors)
    assert choice.why == (
        "Q3_K would save 17.0 KiB and cost 5.0 times as much; "
        "Q6_K would take 33.0 KiB more and cost 25 % as much."
    )
    assert replace(choice, errors={"Q4_K": 0.0}).why == "No other type fits its rows."
    assert replace(choice, name="output.weight").place == (-1, "output")


def test_each_pass_of_measuring_is_told_and_can_be_stopped(
    embedded: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_TOKENS_ON_CPU", 600)
    monkeypatch.setattr(dynamic, "_PROBED_TOKENS", 100)
    told: list[Pass] = []
    stop = threading.Event()

    def tell(one: Pass) -> None:
        told.append(one)
        if one.number == 4 and one.done > 3:
            stop.set()

    with pytest.raises(Cancelled):
        save_gguf(
            embedded.model,
            embedded.tokenizer,
            tmp_path / "a",
            quantization="dynamic",
            progress=Progress(stop=stop, measuring=tell),
        )
    assert list(tmp_path.iterdir()) == []
    passes = {one.number: one.title for one in told}
    assert list(passes.items()) == list(enumerate(dynamic.PASSES, 1))
    for number in (1, 2):
        done = [one.done for one in told if one.number == number]
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == max(one.total for one in told if one.number == number)
    third = [one for one in told if one.number == 3]
    assert third[-1].done >= 0.7 * third[-1].total  # less where both candidates are the same
    assert all((one.seconds_left is None) == (one.done == 0) for one in told)
    assert told[-1].done == 4


def test_a_dynamic_file_is_written_and_llama_cpp_answers_from_it(
    embedded: Measured,
    at_q4_k_m: tuple[Mix, DynamicReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = save_imatrix(embedded.importance, tmp_path / "im.gguf")
    limits: list[int] = []

    def made_already(*given: Any, **_: Any) -> tuple[Mix, DynamicReport]:
        limits.append(given[-1])
        return at_q4_k_m

    monkeypatch.setattr(dynamic, "make_dynamic", made_already)
    folder = save_gguf(
        embedded.model,
        embedded.tokenizer,
        tmp_path / "a",
        quantization=["dynamic", "q4_k_s"],
        size="3.3MB",
        importance=str(file),
        calibration=embedded.text.rows,
    )
    names = sorted(path.name for path in folder.iterdir())
    written = folder / "tunebook-tiny-dynamic-Q4_K_M.gguf"
    assert names == [
        "Modelfile",
        "tunebook-tiny-Q4_K_S.gguf",
        "tunebook-tiny-dynamic-Q4_K_M.gguf",
        "tunebook-tiny-dynamic-Q4_K_M.json",
    ]
    (limit,) = limits
    beside = written.stat().st_size - at_q4_k_m[1].bytes
    assert 0.995 * 3.3e6 < limit + beside <= 3.3e6
    header = read_gguf(written)
    assert header.values["quantize.imatrix.file"] == "im.gguf"
    assert header.values["quantize.imatrix.entries_count"] == 43
    assert header.values["general.file_type"] == int(MIXES["Q4_K_M"].file_type)
    types = {tensor.name: tensor.type for tensor in header.tensors}
    for choice in DynamicReport.load(folder / names[-1]).tensors:
        assert types[choice.name] == choice.type
    pytest.importorskip("xllamacpp")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    with LlamaServer(written) as server:
        assert server.answer(asked, tokens=40) == ("The capital of France is Paris.", "stop")


def test_stock_mixes_are_written_by_what_matters(
    embedded: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_TOKENS_ON_CPU", 1500)
    files = []
    for number, importance in enumerate((None, "auto", embedded.importance)):
        folder = save_gguf(
            embedded.model,
            embedded.tokenizer,
            tmp_path / str(number),
            quantization="q4_0",
            importance=importance,
        )
        files.append(next(folder.glob("*.gguf")))
    headers = [read_gguf(file) for file in files]
    assert "quantize.imatrix.dataset" not in headers[0].values
    assert headers[1].values["quantize.imatrix.dataset"] == "tunebook general"
    assert len({file.read_bytes() for file in files}) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantization": "dynamic", "bits": 4.5, "size": "4GB"}, "has one size"),
        ({"quantization": "q4_k_m", "bits": 4.5}, "for dynamic mixes"),
        ({"quantization": "dynamic", "size": "large"}, "no quantization 'large'"),
        ({"quantization": []}, "no quantization to write"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    options: dict[str, Any], told: str, embedded: Measured, tmp_path: Path
) -> None:
    more = {"importance": embedded.importance, "calibration": embedded.text.rows[:20], **options}
    with pytest.raises(RecipeInvalid, match=told):
        save_gguf(embedded.model, embedded.tokenizer, tmp_path / "a", **more)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_found_before_anything_is_measured(
    embedded: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tunebook.export.gguf.importance.measure_importance", lambda *_, **__: 1 / 0
    )
    (tmp_path / "mine.txt").write_text("years of work")
    with pytest.raises(FolderExists):
        save_gguf(embedded.model, embedded.tokenizer, tmp_path, quantization="dynamic")


def test_calibration_takes_own_rows_and_holds_some_out(embedded: Measured) -> None:
    own = rows_of(Recipe(), embedded.tokenizer)
    assert len(own) > 100
    made = calibration(embedded.tokenizer, own, tokens=4000)
    assert made.datasets == ("own rows", "tunebook general")
    kept, held_out = (set(map(tuple, rows)) for rows in (made.rows, made.held_out))
    assert kept
    assert held_out
    assert not kept & held_out
    mine = sum(len(row) for row in kept | held_out if list(row) in own)
    assert 1900 < mine <= 2100
    assert sum(map(len, kept | held_out)) == pytest.approx(4000, abs=100)


def test_data_that_are_gone_do_not_stop_an_export(
    embedded: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Recipe().with_values({"data.source": "/nowhere/rows.jsonl"})
    assert rows_of(gone, embedded.tokenizer) == []
    assert "general text alone" in caplog.text


@pytest.mark.parametrize("by_file_names", [False, True])
def test_layers_whose_rounding_costs_most_stay_in_16_bit(
    by_file_names: bool, embedded: Measured, tmp_path: Path
) -> None:
    tensors = linear_tensors(embedded.model)
    importance = embedded.importance
    if not by_file_names:
        importance = measure_importance(embedded.model, tensors, embedded.text.rows)
    kept = four_bit_skips(embedded.model, importance, bits=8)
    names = {name for name, _ in embedded.model.named_modules()}
    assert set(kept) - {"lm_head"} <= names
    assert "lm_head" in kept
    assert 3 < len(kept) < len(tensors)
    folder = save_merged(
        embedded.model, embedded.tokenizer, tmp_path / "a", method="merged_4bit", keep=kept
    )
    config = json.loads((folder / "config.json").read_text())
    assert set(config["quantization_config"]["llm_int8_skip_modules"]) == set(kept)
    total = sum(parameter.numel() for parameter in embedded.model.parameters())
    assert (folder / "model.safetensors").stat().st_size < 1.03 * total
    others = [tensor.name.removesuffix(".weight") for tensor in tensors][: len(kept) - 1]
    measured = [nf4_divergence(embedded, keep) for keep in (kept, others)]
    assert measured[0] < 0.7 * measured[1]


def nf4_divergence(embedded: Measured, keep: list[str]) -> float:
    """Of the model with all linear layers but these rounded to NF4."""
    from tunebook.export.skips import _rounded

    before = {}
    rows = embedded.text.held_out
    with torch.no_grad():
        true = [
            embedded.model(torch.tensor([row], device=embedded.model.device))
            .logits[0]
            .log_softmax(-1)
            for row in rows
        ]
        for name, module in embedded.model.named_modules():
            if name.endswith("_proj") and name not in keep:
                before[module] = module.weight.data
                module.weight.data = _rounded(module.weight.data, "NF4", None)
        try:
            ours = [
                embedded.model(torch.tensor([row], device=embedded.model.device))
                .logits[0]
                .log_softmax(-1)
                for row in rows
            ]
        finally:
            for module, weight in before.items():
                module.weight.data = weight
    gaps = [(p.exp() * (p - q)).sum(-1) for p, q in zip(true, ours, strict=True)]
    return float(torch.cat(gaps).mean())


def test_four_bits_of_no_clear_size_are_refused(embedded: Measured, tmp_path: Path) -> None:
    for options in ({}, {"bits": 6, "size": "5GB"}, {"bits": 3}):
        with pytest.raises(RecipeInvalid):
            four_bit_skips(embedded.model, embedded.importance, **options)  # type: ignore[arg-type]
    columns = Importance.of_columns(embedded.importance.columns())
    theirs = load_imatrix(save_imatrix(columns, tmp_path / "im.gguf"))
    with pytest.raises(FileInvalid, match="no gradients"):
        four_bit_skips(embedded.model, theirs, bits=6)


def test_tutorials_ask_for_it_by_their_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    from tunebook import saving

    model = saving.with_saving(add_lora(tiny_model("qwen3"), LoraPart(r=4), seed=1))

    class Trainer:
        train_dataset = Dataset.from_dict({"input_ids": [[5, 6, 7], [8, 9]]})

    trainer = Trainer()
    saving.remember(model, trainer)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(saving.export, "save_gguf", lambda *_, **more: asked.update(more))
    model.save_pretrained_gguf(tmp_path, None, "dynamic", imatrix_file=True, bits=5)
    assert asked == {
        "quantization": "dynamic",
        "importance": "auto",
        "bits": 5,
        "size": None,
        "calibration": [[5, 6, 7], [8, 9]],
        "projector": None,
        "replace": False,
        "progress": None,
    }
    model.save_pretrained_gguf(tmp_path, None, "q4_k_m", imatrix_file="im.gguf")
    assert asked["importance"] == "im.gguf"


def test_a_recipe_foretells_the_size_of_a_dynamic_file() -> None:
    from tunebook.export import predicted_sizes
    from tunebook.models.loading import load_shape

    shape = load_shape(ModelPart())
    sizes = [
        predicted_sizes(Recipe().with_values({"export.gguf_quantization": [name]}), shape)["gguf"]
        for name in ("dynamic", "q4_k_m")
    ]
    assert sizes[0] == sizes[1]
