"""The flat optimizer gives the numbers of the optimizer it wraps, whatever is done to the gradients."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from tunebook.errors import CheckpointUnsuitable
from tunebook.recipe import Recipe
from tunebook.training import train
from tunebook.training.flat import FlatOptimizer, flat_optimizer

OPTIMIZERS = ["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"]
OTHERS = [
    "adagrad", "ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit", "paged_adamw_32bit",
    "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "sgd",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def network(*, hidden: int = 100) -> nn.Module:
    """Matrices above and below the size of an 8-bit state, not multiples of a block; biases; a norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(70, 64, bias=False), nn.Tanh(), nn.Linear(64, hidden), nn.Tanh(),
        nn.Linear(hidden, 64), nn.LayerNorm(64), nn.Linear(64, 3),
    )  # fmt: skip


def arguments(optim: str, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), optim=optim, learning_rate=1e-2, weight_decay=0.1, use_cpu=True,
        report_to="none",
    )  # fmt: skip


def decayed(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]


def flat(model: nn.Module, optim: str, folder: Path) -> FlatOptimizer:
    optimizer = flat_optimizer(model, arguments(optim, folder), decayed(model))
    assert optimizer is not None
    return optimizer


def tensor_by_tensor(model: nn.Module, optim: str, folder: Path) -> torch.optim.Optimizer:
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments(optim, folder), model)
    names = decayed(model)
    yes, no = [], []
    for name, parameter in model.named_parameters():
        (yes if name in names else no).append(parameter)
    groups = [{"params": yes, "weight_decay": 0.1}, {"params": no, "weight_decay": 0.0}]
    return kind(groups, **options)


def batches(count: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 70, generator=generator) for _ in range(count)]


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: list[torch.Tensor]) -> None:
    for inputs in steps:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def values(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_equal(model: nn.Module, expected: nn.Module, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(values(model), values(expected), rtol=0, atol=tolerance)


def assert_views(optimizer: FlatOptimizer) -> None:
    for buffer in optimizer.adapter.buffers:
        gradient = buffer.parameter.grad
        for _, parameter, _, view in buffer.members:
            assert parameter.grad is view
            assert view.untyped_storage().data_ptr() == gradient.untyped_storage().data_ptr()
            storage = buffer.parameter.untyped_storage().data_ptr()
            assert parameter.untyped_storage().data_ptr() == storage


@pytest.mark.parametrize("optim", OPTIMIZERS + OTHERS)
def test_twenty_steps_are_those_of_the_optimizer_tensor_by_tensor(optim: str, tmp_path: Path):
    model, expected = network(), network()
    ours, theirs = flat(model, optim, tmp_path), tensor_by_tensor(expected, optim, tmp_path)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for optimizer in (ours, theirs)
    ]
    for inputs in batches(20):
        for pair in ((model, ours), (expected, theirs)):
            learn(*pair, [inputs])
        for schedule in schedules:
            schedule.step()
        assert_equal(model, expected)
    assert any(not torch.equal(a, b) for a, b in zip(values(model), values(network()), strict=True))
    assert_views(ours)


def test_eight_bit_states_are_the_same_blocks(tmp_path: Path):
    model, expected = network(), network()
    ours, theirs = (
        flat(model, "adamw_8bit", tmp_path),
        tensor_by_tensor(expected, "adamw_8bit", tmp_path),
    )
    learn(model, ours, batches(3))
    learn(expected, theirs, batches(3))
    compared = set()
    of_name = dict(expected.named_parameters())
    for buffer in ours.adapter.buffers:
        state = ours.state[buffer.parameter]
        start = 0
        for name, parameter, _, _ in buffer.members:
            alone = theirs.state[of_name[name]]
            mine = state["state1"][start : start + parameter.numel()]
            assert torch.equal(mine.view(parameter.shape), alone["state1"])
            compared.add(alone["state1"].dtype)
            start += -(-parameter.numel() // 256) * 256
        assert not buffer.parameter.detach()[start:].any()
    assert compared == {torch.uint8, torch.float32}


def test_nothing_is_left_in_bitsandbytes_register(tmp_path: Path):
    from bitsandbytes.optim import GlobalOptimManager

    register = GlobalOptimManager.get_instance().pid2config
    before = dict(register)
    optimizer = flat(network(), "adamw_8bit", tmp_path)
    assert len(register) == len(before) + 2
    del optimizer
    gc.collect()
    assert register == before


def test_gradients_add_up_in_place(tmp_path: Path):
    model, expected = network(), network()
    optimizer = flat(model, "adamw_torch", tmp_path)
    for inputs in batches(3):
        model(inputs).square().mean().backward()
        expected(inputs).square().mean().backward()
    assert_views(optimizer)
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    optimizer.zero_grad(set_to_none=True)
    assert_views(optimizer)
    assert not any(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("attach", [True, False], ids=["attached", "copied by the step"])
def test_gradients_set_to_none_by_others_are_healed(attach: bool, tmp_path: Path):
    model, expected = network(), network()
    ours = flat(model, "adamw_torch", tmp_path)
    theirs = tensor_by_tensor(expected, "adamw_torch", tmp_path)
    for inputs in batches(4):
        model.zero_grad()
        if attach:
            ours.attach()
            assert_views(ours)
        model(inputs).square().mean().backward()
        ours.step()
        assert_views(ours)
        learn(expected, theirs, [inputs])
    assert_equal(model, expected)


def test_one_missing_gradient_counts_as_zero(tmp_path: Path):
    model = network()
    optimizer = flat(model, "adamw_torch", tmp_path)
    model(batches(1)[0]).square().mean().backward()
    first, second = list(model.parameters())[:2]
    kept = second.grad.clone()
    first.grad = None
    optimizer.attach()
    assert not first.grad.any()
    assert torch.equal(second.grad, kept)
    assert_views(optimizer)


def test_values_put_in_place_of_a_view_are_taken_over(tmp_path: Path):
    model = network()
    optimizer = flat(model, "adamw_torch", tmp_path)
    model[2].weight.data = torch.full_like(model[2].weight, 0.25)
    model[0].weight.grad = torch.full_like(model[0].weight, 0.5)
    optimizer.attach()
    assert_views(optimizer)
    assert (model[2].weight == 0.25).all()
    assert (model[0].weight.grad == 0.5).all()


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_a_saved_state_goes_on_to_the_bit(optim: str, tmp_path: Path):
    steps = batches(8)
    whole, halved = network(), network()
    learn(whole, flat(whole, optim, tmp_path), steps)
    first = flat(halved, optim, tmp_path)
    learn(halved, first, steps[:4])
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    weights = {name: value.clone() for name, value in halved.state_dict().items()}
    resumed = network()
    resumed.load_state_dict(weights)
    second = flat(resumed, optim, tmp_path)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    learn(resumed, second, steps[4:])
    assert_equal(resumed, whole, tolerance=0.0)


def test_a_changed_rate_reaches_the_update_after_loading(tmp_path: Path):
    model = network()
    optimizer = flat(model, "adamw_8bit", tmp_path)
    learn(model, optimizer, batches(1))
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = values(model)
    learn(model, optimizer, batches(1))
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)
    assert len(optimizer.state) == len(optimizer.adapter.buffers)


def test_the_state_of_another_adapter_is_refused(tmp_path: Path):
    optimizer = flat(network(), "adamw_torch", tmp_path)
    state = optimizer.state_dict()
    wider = flat(network(hidden=128), "adamw_torch", tmp_path)
    with pytest.raises(CheckpointUnsuitable, match=r"2.weight \[100, 64\] where .* \[128, 64\]"):
        wider.load_state_dict(state)
    longer = flat(nn.Sequential(*network(), nn.Linear(3, 3)), "adamw_torch", tmp_path)
    with pytest.raises(CheckpointUnsuitable, match="where the adapter has"):
        longer.load_state_dict(state)
    shorter = flat(nn.Sequential(*list(network())[:1]), "adamw_torch", tmp_path)
    with pytest.raises(CheckpointUnsuitable, match="9 tensors, the adapter has 1"):
        shorter.load_state_dict(state)
    regrouped = flat_optimizer(network(), arguments("adamw_8bit", tmp_path), decayed(network()))
    with pytest.raises(CheckpointUnsuitable):
        regrouped.load_state_dict(state)
    plain = tensor_by_tensor(network(), "adamw_torch", tmp_path)
    with pytest.raises(CheckpointUnsuitable, match="another optimizer"):
        optimizer.load_state_dict(plain.state_dict())


def test_a_gradient_scaler_sees_the_flat_gradients(tmp_path: Path):
    model, expected = network(), network()
    optimizer = flat(model, "adamw_torch", tmp_path)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for inputs in batches(3):
        model.zero_grad()
        optimizer.attach()
        scaler.scale(model(inputs).square().mean()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    learn(expected, tensor_by_tensor(expected, "adamw_torch", tmp_path), batches(3))
    assert_equal(model, expected)
    before = values(model)
    optimizer.zero_grad()
    scaler.scale(model(batches(1)[0]).square().mean() * float("inf")).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)


def test_each_dtype_has_its_buffer_and_frozen_tensors_stay(tmp_path: Path):
    model = network()
    model[0].to(torch.bfloat16)
    model[2].weight.requires_grad_(False)
    frozen = model[2].weight.data_ptr()
    optimizer = flat(model, "adamw_torch", tmp_path)
    assert {b.parameter.dtype for b in optimizer.adapter.buffers} == {torch.float32, torch.bfloat16}
    assert model[2].weight.data_ptr() == frozen
    assert model[2].weight.grad is None


def test_where_the_numbers_would_differ_there_is_no_flat_optimizer(tmp_path: Path):
    model = network()
    assert flat_optimizer(model, arguments("adafactor", tmp_path), []) is None
    assert (
        flat_optimizer(model.requires_grad_(False), arguments("adamw_torch", tmp_path), []) is None
    )
    embedding = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 3))
    assert flat_optimizer(embedding, arguments("adamw_8bit", tmp_path), []) is None


def test_a_run_trains_by_it_and_saves_its_state(
    quick: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = train(quick(training__optimizer="adamw_8bit"), wait=True, root=tmp_path)
    checkpoint = run.folder.last_checkpoint()
    assert checkpoint is not None
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    trained = [(name, p) for name, p in run.model.named_parameters() if p.requires_grad]
    saved = {name: shape for buffer in state["layout"] for name, shape in buffer}
    assert saved == {name: list(parameter.shape) for name, parameter in trained}
    assert len(state["state"]) == len(state["layout"]) <= 2


# ------------------------------------------------------------------------------- float16's scale


def scaled_pair(
    model: nn.Module, optim: str, folder: Path
) -> tuple[FlatOptimizer, torch.amp.GradScaler]:
    return flat(model, optim, folder), torch.amp.GradScaler("cpu", init_scale=2.0**12)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adamw_8bit"])
@pytest.mark.parametrize("clipped", [False, True])
def test_the_scale_is_taken_out_once(optim: str, clipped: bool, tmp_path: Path):
    model, expected = network(), network()
    ours, scaler = scaled_pair(model, optim, tmp_path)
    theirs = tensor_by_tensor(expected, optim, tmp_path)
    for inputs in batches(4):
        for half in inputs.chunk(2):  # accumulated
            ours.attach()
            scaler.scale(model(half).square().mean()).backward()
            expected(half).square().mean().backward()
        if clipped:
            scaler.unscale_(ours)
            norm = nn.utils.clip_grad_norm_(ours.flat_parameters(), 0.05)
            assert norm == pytest.approx(nn.utils.clip_grad_norm_(expected.parameters(), 0.05))
        scaler.step(ours)
        scaler.update()
        theirs.step()
        model.zero_grad(set_to_none=True)  # as transformers' trainer does
        expected.zero_grad()
        assert_equal(model, expected, tolerance=2e-6)
    assert scaler.get_scale() == 2.0**12


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "rmsprop_bnb"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_overflow_skips_the_update_and_leaves_no_trace(optim: str, bad: float, tmp_path: Path):
    model, expected = network(), network()
    ours, scaler = scaled_pair(model, optim, tmp_path)
    theirs = tensor_by_tensor(expected, optim, tmp_path)
    for number, inputs in enumerate(batches(5)):
        before = values(model)
        ours.attach()
        scaler.scale(model(inputs).square().mean()).backward()
        if number == 2:
            model[0].weight.grad[3, 5] = bad
        scaler.unscale_(ours)
        nn.utils.clip_grad_norm_(ours.flat_parameters(), 1.0)
        scaler.step(ours)
        scaler.update()
        ours.zero_grad()
        if number == 2:
            assert all(torch.equal(a, b) for a, b in zip(values(model), before, strict=True))
            assert scaler.get_scale() == 2.0**11
            continue
        learn_clipped(expected, theirs, inputs)
        assert_equal(model, expected, tolerance=2e-6)
    assert_views(ours)


def learn_clipped(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
