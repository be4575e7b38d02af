"""Our trainer over a patched model: the curve of plain TRL, whatever the batch, every step logged once."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer as PlainTrainer

from tunebook.data.tokenizers import tokenizer_for
from tunebook.engine import (
    LayerMemory,
    audit_gradients,
    fused_layers,
    has_fused_head,
    host_bytes,
    patch,
    patch_checked,
    report,
    spend,
    unpatch,
)
from tunebook.engine.decoder import NOTHING, berth_of
from tunebook.engine.offload import Stows
from tunebook.events import EventLog, StepEvent, WarningEvent
from tunebook.recipe import Recipe
from tunebook.training import Run, train
from tunebook.training.callbacks import EventCallback
from tunebook.training.parts import split_batch
from tunebook.training.setup import set_up
from tunebook.training.sft import make_trainer, sft_config
from tunebook.training.trainer import SFTTrainer, _adapter_dtype_kept
from tunebook.training.worker import Prepared, prepare, probe

Log = list[dict[str, Any]]
# on a GPU AdamW keeps its averages in 8 bit, where a small difference may become a step of the code
ROUNDING = 1e-2 if torch.cuda.is_available() else 1e-4


def demo(steps: int, batch_size: int, accumulation: int, **values: Any) -> tuple[Recipe, Prepared]:
    """QLoRA of the embedded model on the embedded rows, loaded and tokenised."""
    recipe = Recipe().with_values(
        {
            "model.max_seq_length": 64,
            "model.dtype": "float32",
            "data.max_rows": 400,
            "training.max_steps": steps,
            "training.batch_size": batch_size,
            "training.gradient_accumulation_steps": accumulation,
            "training.learning_rate": 1e-3,
            "training.warmup_steps": 5,
            **values,
        }
    )
    prepared = prepare(recipe, None, lambda _: None)
    assert recipe.quantization.bits == 4
    return recipe, prepared


def logged(trainer: Any) -> Log:
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def curve(folder: Path, steps: int, batch_size: int, accumulation: int, **values: Any) -> Log:
    """By our trainer on a model that is patched and checked, as in a run."""
    recipe, prepared = demo(steps, batch_size, accumulation, **values)
    batch = probe(prepared.data, prepared.model, prepared.words)
    patch_checked(prepared.model, batch["input_ids"], batch["labels"], device="any")
    audit_gradients(prepared.model, batch)
    trainer = make_trainer(
        recipe, prepared.plan.strategy, prepared.model, prepared.tokenizer, prepared.data.train,
        None, output_dir=folder, callbacks=[],
    )  # fmt: skip
    assert trainer._fused
    return logged(trainer)


def column(log: Log, name: str) -> list[float]:
    return [entry[name] for entry in log]


@pytest.mark.slow
@pytest.mark.skipif(
    Version(version("trl")) < Version("1.16"), reason="TRL's loss needs a GPU before 1.16"
)
def test_fifty_steps_of_qlora_are_those_of_plain_trl_and_peft(tmp_path):
    ours = curve(tmp_path / "ours", 50, 4, 1)
    recipe, prepared = demo(50, 4, 1)
    strategy = prepared.plan.strategy
    with _adapter_dtype_kept(prepared.model):  # rounded to bfloat16 it would learn less
        trainer = PlainTrainer(
            prepared.model,
            args=sft_config(recipe, strategy, prepared.model, tmp_path / "plain", evaluate=False),
            train_dataset=prepared.data.train,
            processing_class=prepared.tokenizer,
        )
    plain = logged(trainer)
    assert column(ours, "step") == list(range(1, 51))
    assert ours[-1]["loss"] < ours[0]["loss"] - 3
    assert column(ours, "loss") == pytest.approx(column(plain, "loss"), abs=1e-2)
    assert column(ours, "mean_token_accuracy") == pytest.approx(
        column(plain, "mean_token_accuracy"), abs=0.03
    )
    assert ours[0]["entropy"] == pytest.approx(plain[0]["entropy"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_batch_and_accumulation_are_the_same_step_in_other_pieces(tmp_path, packing):
    sizes = {"training.packing": packing, "model.max_seq_length": 96 if packing else 64}
    curves = [curve(tmp_path / str(size), 6, size, 8 // size, **sizes) for size in (8, 4, 2)]
    for other in curves[1:]:
        for name in ("loss", "grad_norm", "entropy"):
            same = pytest.approx(column(curves[0], name), rel=ROUNDING)
            assert column(other, name) == same


class Unwaiting(TrainerCallback):
    """While it lasts, whoever waits for the device inside of a step fails."""

    def __init__(self, first: int, last: int) -> None:
        self.modes = {first: "error", last: "default"}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.modes:
            torch.cuda.set_sync_debug_mode(self.modes.pop(state.global_step))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_no_step_waits_for_the_device(tmp_path, packing):
    sizes = {"training.packing": packing, "model.dtype": "auto", "training.save_steps": 1000}
    recipe, prepared = demo(14, 4, 1, **sizes)
    batch = probe(prepared.data, prepared.model)
    patch_checked(prepared.model, batch["input_ids"], batch["labels"])
    unwaiting = Unwaiting(6, 12)
    trainer = make_trainer(
        recipe, prepared.plan.strategy, prepared.model, prepared.tokenizer, prepared.data.train,
        None, output_dir=tmp_path, callbacks=[unwaiting],
    )  # fmt: skip
    try:
        log = logged(trainer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not unwaiting.modes
    assert column(log, "step") == list(range(1, 15))


# ----------------------------------------------------------------------- small models, row by row


def small_model(family: str = "llama", **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, **changes,
    }  # fmt: skip
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, config)


def random_rows(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(6, 20, (count,), generator=generator).tolist()
    ids = [torch.randint(3, 2048, (n,), generator=generator).tolist() for n in lengths]
    return Dataset.from_dict(
        {"input_ids": ids, "labels": [[-100] * (i % 4) + row[i % 4 :] for i, row in enumerate(ids)]}
    )


class Seen(TrainerCallback):
    """What is logged, when, and what the trainer says of it at that moment."""

    def __init__(self) -> None:
        self.logs: Log = []
        self.ended = 0
        self.trainer: SFTTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ended = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        assert self.trainer is not None
        if "loss" in logs:
            tokens, trained = self.trainer.token_counts()
            own = {"step": state.global_step, "tokens": tokens, "trained": trained}
            self.logs.append({**logs, **own, "behind": self.ended - state.global_step})


def small_run(folder: Path, model: Any, **values: Any) -> tuple[SFTTrainer, Seen]:
    """Ten steps of two rows, evaluated after the third and saved after the sixth."""
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": 2, "max_steps": 10, "learning_rate": 1e-2,
        "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 6, **values,
    }  # fmt: skip
    seen = Seen()
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            str(folder), **arguments, max_length=None, remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True}, report_to="none", disable_tqdm=True,
            use_cpu=True, seed=3, gradient_checkpointing=False, bf16=False,
        ),
        train_dataset=random_rows(24),
        eval_dataset=random_rows(4),
        processing_class=tokenizer_for(Recipe()),
        callbacks=[seen],
    )  # fmt: skip
    seen.trainer = trainer
    trainer.train()
    return trainer, seen


@pytest.fixture
def logged_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a step is logged when the next one has been taken."""
    monkeypatch.setattr(SFTTrainer, "_may_log_later", lambda self, _: self._fused)


def patched(model: Any) -> Any:
    patch(model, device="any")
    return model


def without_place(log: Log) -> Log:
    return [{k: v for k, v in entry.items() if k != "behind"} for entry in log]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_is_logged_later_is_logged_as_it_would_have_been(
    tmp_path, request, accumulation
):
    values = {"gradient_accumulation_steps": accumulation}
    at_once_trainer, at_once = small_run(tmp_path / "1", patched(small_model()), **values)
    request.getfixturevalue("logged_later")
    later_trainer, later = small_run(tmp_path / "2", patched(small_model()), **values)
    assert column(at_once.logs, "behind") == [0] * 10
    # with an evaluation, a checkpoint or the end nothing is put off
    assert column(later.logs, "behind") == [1, 1, 0, 1, 1, 0, 1, 1, 0, 0]
    assert column(later.logs, "step") == list(range(1, 11))
    assert {"loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy", "epoch"} <= (
        later.logs[0].keys()
    )
    assert without_place(later.logs) == without_place(at_once.logs)
    histories = [
        [
            {k: v for k, v in entry.items() if "runtime" not in k and "second" not in k}
            for entry in h
        ]
        for h in (at_once_trainer.state.log_history, later_trainer.state.log_history)
    ]
    assert histories[0] == histories[1]


def test_several_steps_in_one_line_have_their_mean_and_the_run_its_own(tmp_path, request):
    _, first = small_run(tmp_path / "1", patched(small_model()), logging_steps=1)
    request.getfixturevalue("logged_later")
    trainer, seen = small_run(tmp_path / "2", patched(small_model()), logging_steps=2)
    each = column(first.logs, "loss")
    assert column(seen.logs, "step") == [2, 4, 6, 8, 10]
    assert column(seen.logs, "loss") == pytest.approx(
        [(a + b) / 2 for a, b in zip(each[::2], each[1::2], strict=True)], rel=1e-5
    )
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(sum(each) / 10, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "olmo2", "starcoder2"])
def test_a_fused_head_trains_as_without_over_layers_that_are_fused_or_left(tmp_path, family):
    logs, evaluated = [], []
    for model in (small_model(family), patched(small_model(family))):
        fused = has_fused_head(model)
        trainer, seen = small_run(tmp_path / str(fused), model)
        assert trainer._fused == fused
        logs.append(seen.logs)
        evaluated.append([e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e])
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-4)
    assert len(evaluated[0]) == 4
    assert column(logs[1], "loss") == pytest.approx(column(logs[0], "loss"), rel=1e-4)
    assert column(logs[1], "grad_norm") == pytest.approx(column(logs[0], "grad_norm"), rel=1e-3)


def test_a_second_trainer_of_one_model_is_fused_too_and_unpatch_takes_all_away(tmp_path):
    model = patched(small_model())
    for part in ("first", "second"):
        trainer, _ = small_run(tmp_path / part, model, max_steps=1)
        assert trainer._fused
    assert not patch(model, device="any").left
    unpatch(model)
    assert not has_fused_head(model)
    assert "forward" not in model.get_base_model().__dict__
    assert report(model) is None


@pytest.mark.parametrize("full_at", [1, 2, 3])  # first, larger than any before, first of an update
def test_a_batch_that_did_not_fit_is_run_in_parts_to_the_same_step(tmp_path, monkeypatch, full_at):
    values = {
        "max_steps": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "eval_strategy": "no",
    }  # fmt: skip
    _, whole = small_run(tmp_path / "whole", patched(small_model()), **values)
    rows, take = [], SFTTrainer._forward_backward

    def full_once(self: SFTTrainer, model: Any, inputs: Any) -> Any:
        rows.append(inputs["input_ids"].shape[0])
        result = take(self, model, inputs)  # the gradients are there already
        if len(rows) == full_at:
            raise torch.OutOfMemoryError("no room")
        return result

    monkeypatch.setattr(SFTTrainer, "_forward_backward", full_once)
    monkeypatch.setattr(SFTTrainer, "step_down", lambda self: 2)
    _, parts = small_run(tmp_path / "parts", patched(small_model()), **values)
    assert rows[full_at - 1 : full_at + 2] == [4, 2, 2]
    assert column(parts.logs, "step") == [1, 2, 3, 4]
    for name in ("loss", "grad_norm", "tokens", "trained", "entropy", "mean_token_accuracy"):
        assert column(parts.logs, name) == pytest.approx(column(whole.logs, name), rel=1e-4), name


@pytest.mark.parametrize("full_at", [None, 3])
def test_offloaded_inputs_train_to_the_same_numbers(tmp_path, monkeypatch, full_at):
    """Batches of many lengths, two for an update, evaluation between; once the device is full."""
    curves, take = [], SFTTrainer._forward_backward
    monkeypatch.setattr(SFTTrainer, "step_down", lambda self: 1)
    for offloaded in (0, 2):
        model = patched(small_model(num_hidden_layers=4))
        wanted: list[Stows] = ["inputs"] * offloaded + ["nothing"] * (4 - offloaded)
        spend(model, [LayerMemory(NOTHING, offload=one) for one in wanted])
        calls: list[int] = []

        def full_once(self: SFTTrainer, model: Any, inputs: Any, calls: list[int] = calls) -> Any:
            calls.append(1)
            result = take(self, model, inputs)
            if len(calls) == full_at:
                raise torch.OutOfMemoryError("no room")
            return result

        monkeypatch.setattr(SFTTrainer, "_forward_backward", full_once)
        values = {"gradient_accumulation_steps": 2, "max_steps": 6}
        trainer, seen = small_run(tmp_path / str(offloaded), model, **values)
        evaluated = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
        curves.append((without_place(seen.logs), evaluated))
        rows = 2 * 32 * 32 * 4  # two rows of at most 32 tokens
        assert (host_bytes(model) > 0) == bool(offloaded)
        assert host_bytes(model) <= offloaded * rows
    assert curves[1] == curves[0]
    assert len(curves[0][0]) == 6


def test_a_host_without_room_is_told_once(tmp_path):
    model = patched(small_model(num_hidden_layers=4))
    spend(model, [LayerMemory(NOTHING, offload="inputs")] * 4)
    trainer, _ = small_run(tmp_path, model, max_steps=1)
    log = EventLog(tmp_path / "events.jsonl")
    callback = EventCallback(log, model, lambda: False)
    callback.attach(trainer)
    for failure in (None, "no room", "no room"):
        berth_of(fused_layers(model)[0]).store.failure = failure
        logs = {"loss": 1.0, "learning_rate": 0.1}
        callback.on_log(trainer.args, trainer.state, trainer.control, logs=logs)
    warnings = [event for event in log.read() if isinstance(event, WarningEvent)]
    assert [event.code for event in warnings] == ["host_memory"]
    assert "no room" in warnings[0].message


def test_gradients_that_cannot_be_had_again_are_not_taken_for_zero(tmp_path):
    trainer, _ = small_run(tmp_path, patched(small_model()), max_steps=1)
    trainer.step_down = lambda: 2
    trainer._largest, trainer._accumulating = 0, -1
    assert trainer._gradients_before(10) == (True, None)  # the first of an update: nothing yet
    assert trainer._gradients_before(10) == (False, None)  # no larger than what has fitted
    restorable, copies = trainer._gradients_before(11)
    assert restorable
    buffers = trainer._flat.flat_parameters()
    for copy, buffer in zip(copies, buffers, strict=True):
        assert torch.equal(copy, buffer.grad.cpu())
        assert copy.data_ptr() != buffer.grad.data_ptr()
        assert copy.device.type == "cpu"  # the forecast has no room for them on the device


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_a_packed_batch_is_split_between_its_documents(parts):
    lengths = [3, 5, 1, 4, 6, 0, 0]
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    ids = torch.arange(19)[None]
    batch = {
        "input_ids": ids, "labels": ids, "position_ids": ids, "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts, "max_length_q": 6, "loss_rows": ids[0], "divisor": torch.tensor(7),
    }  # fmt: skip
    pieces = list(split_batch(batch, parts))
    assert 1 < len(pieces) <= parts
    assert torch.equal(torch.cat([piece["labels"] for piece in pieces], dim=1), ids)
    documents = []
    for piece in pieces:
        assert "loss_rows" not in piece
        begins = piece["cu_seq_lens_q"].tolist()
        assert begins[0] == 0
        assert begins[-1] == piece["input_ids"].shape[1] == piece["position_ids"].shape[1]
        documents += [b - a for a, b in pairwise(begins) if b > a]
    assert documents == [3, 5, 1, 4, 6]


@pytest.mark.parametrize(("optim", "replayed"), [("adamw_torch", 10), ("adafactor", 0)])
def test_only_gradients_that_stay_in_place_are_replayed(tmp_path, monkeypatch, optim, replayed):
    calls = []

    class Replaying(SFTTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            def replay(inputs: Any) -> Any:
                calls.append(inputs)
                return self._forward_backward(self.model, inputs)

            self._graphs: Any = replay
            return super().train(*args, **kwargs)

    monkeypatch.setitem(globals(), "SFTTrainer", Replaying)
    _, seen = small_run(tmp_path, patched(small_model()), optim=optim)
    assert column(seen.logs, "step") == list(range(1, 11))
    assert len(calls) == replayed


# ------------------------------------------------------------------------------- float16's scale


class Float16(SFTTrainer):
    """Scales losses and gradients as on a GPU without bfloat16; the gradient of one batch overflows."""

    overflow: int | None = None
    """Number of the batch, from 0."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.batches = 0
        self.scales: list[float] = []
        self.values: list[torch.Tensor] = []
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        prepared = self.accelerator.prepare

        def prepare(*items: Any) -> Any:
            self.accelerator.native_amp = False  # no autocast, which is not what is looked at
            done = prepared(*items)
            self.accelerator.native_amp = True
            self.accelerator.state._mixed_precision = "fp16"
            return done

        self.accelerator.prepare = prepare
        try:
            return super().train(*args, **kwargs)
        finally:
            self.accelerator.state._mixed_precision = "no"

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        trained = [p for p in model.parameters() if p.requires_grad]
        self.values.append(torch.cat([p.detach().flatten() for p in trained]))
        self.scales.append(self.accelerator.scaler.get_scale())
        loss = super().training_step(model, *args, **kwargs)
        if self.batches == self.overflow:
            trained[3].grad[1, 2] = torch.inf
        self.batches += 1
        return loss


@pytest.mark.parametrize("fused", [False, True], ids=["stock", "fused"])
@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.1])
def test_a_scaled_run_is_the_run(tmp_path, monkeypatch, fused, optim, max_grad_norm):
    values = {"optim": optim, "max_grad_norm": max_grad_norm, "gradient_accumulation_steps": 2}

    def run(name: str) -> tuple[Any, Seen]:
        return small_run(
            tmp_path / name, patched(small_model()) if fused else small_model(), **values
        )

    _, plain = run("plain")
    monkeypatch.setitem(globals(), "SFTTrainer", Float16)
    trainer, seen = run("scaled")
    assert (trainer._flat is not None) == (optim == "adamw_torch")
    assert column(seen.logs, "loss") == pytest.approx(column(plain.logs, "loss"), rel=1e-5)
    if max_grad_norm:
        norms = pytest.approx(column(plain.logs, "grad_norm"), rel=1e-5)
        assert column(seen.logs, "grad_norm") == norms
    assert trainer.batches == 20
    assert set(trainer.scales) == {2.0**10}


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_an_overflow_skips_one_update_and_halves_the_scale(tmp_path, monkeypatch, optim):
    monkeypatch.setitem(globals(), "SFTTrainer", Float16)
    monkeypatch.setattr(Float16, "overflow", 6)
    trainer, seen = small_run(
        tmp_path, patched(small_model()), optim=optim, gradient_accumulation_steps=2
    )
    before, after = trainer.values[::2], trainer.values[2::2]
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=False)]
    assert same == [number == 3 for number in range(9)]
    assert trainer.scales == [2.0**10] * 8 + [2.0**9] * 12
    assert all(torch.isfinite(value).all() for value in trainer.values)
    assert column(seen.logs, "loss")[-1] < column(seen.logs, "loss")[0]


# ------------------------------------------------------------------------------------- whole runs


def test_a_run_that_logs_later_is_stopped_and_resumed_to_the_same_curve(
    quick, tmp_path, monkeypatch, request
):
    monkeypatch.setattr("tunebook.training.worker.set_up", partial(set_up, device="any"))
    recipe = quick(training__max_steps=8, training__save_steps=500)
    whole = train(recipe, wait=True, root=tmp_path / "whole")
    request.getfixturevalue("logged_later")
    asked = count(1)
    monkeypatch.setattr(Run, "_stop_asked", lambda self: next(asked) == 4)
    run = train(recipe, wait=True, root=tmp_path / "parts")
    assert run.state == "stopped"
    assert [event.step for event in run.history()] == [1, 2, 3, 4]
    run.resume().wait()
    assert run.state == "completed"
    ours, theirs = ([e.model_dump() for e in r.log.of(StepEvent)] for r in (run, whole))
    assert column(ours, "step") == list(range(1, 9))
    assert all(entry["seconds"] > 0 for entry in ours)
    for name in ("loss", "grad_norm", "learning_rate", "tokens", "trained_tokens", "epoch"):
        assert column(ours, name) == column(theirs, name)


@pytest.mark.parametrize("device", ["auto", "any"], ids=["stock", "patched"])
def test_a_bfloat16_adapter_trains_and_resumes_as_such(quick, tmp_path, monkeypatch, device):
    monkeypatch.setattr(
        "tunebook.training.setup.patch_checked", partial(patch_checked, device=device)
    )
    recipe = quick(
        training__max_steps=6, training__learning_rate=5e-3, lora__adapter_dtype="bfloat16"
    )
    asked = count(1)
    monkeypatch.setattr(Run, "_stop_asked", lambda self: next(asked) == 4)
    run = train(recipe, wait=True, root=tmp_path)
    assert run.state == "stopped"
    assert run.plan.strategy.adapter_dtype == "bfloat16"
    run.resume().wait()
    trained = [p for p in run.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.bfloat16}
    assert {p.grad.dtype for p in trained if p.grad is not None} == {torch.bfloat16}
    exact = recipe.with_values({"lora.adapter_dtype": "float32"})
    other = train(exact, wait=True, root=tmp_path)
    ours, theirs = (column([e.model_dump() for e in r.history()], "loss") for r in (run, other))
    assert len(ours) == 6
    assert ours[-1] < ours[0]
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)
