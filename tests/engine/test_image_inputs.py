"""Models whose images come with grids: what is worked out on the host, and that no step waits."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from steps import assert_same, take_fused_step, take_step
from torch.utils._python_dispatch import TorchDispatchMode
from vision import MERGE, QWEN, vision_batch, vision_model

from tunebook.engine import CAUSAL, has_fused_head, host_inputs, patch
from tunebook.engine.linear_group import LAYOUT

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "equal",
    "masked_scatter_backward",
}
"""Operations whose result, or its size, the host must know."""
READS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__format__", "numpy")


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        assert name not in WAITS, f"{name} waits for the device"
        assert not by_mask, f"{name} by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waits() -> Iterator[None]:
    """Fails where a step on a GPU would wait for it."""

    def refused(self: torch.Tensor, *_: Any) -> None:
        raise AssertionError("reading a tensor waits for the device")

    with pytest.MonkeyPatch.context() as patched, _Watch():
        for name in READS:
            patched.setattr(torch.Tensor, name, refused)
        yield


@pytest.mark.parametrize("padded", ["no", "right", "left"])
@pytest.mark.parametrize("family", QWEN)
def test_tokens_stand_where_transformers_puts_them(family, padded):
    model = vision_model(family)
    batch = vision_batch(family, rows=3, padded=padded != "no")
    if padded == "left":
        turned = ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
        lengths = batch["attention_mask"].sum(1).tolist()
        for name in turned:
            rows = [row.roll(len(row) - n) for row, n in zip(batch[name], lengths, strict=True)]
            batch[name] = torch.stack(rows)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    given = {name: batch.get(name) for name in names}
    expected, _ = model.model.get_rope_index(**given)
    prepared = host_inputs(model)({name: on_host(value) for name, value in batch.items()})
    assert torch.equal(prepared["position_ids"], expected.cpu())
    assert prepared["image_grids"] == tuple(map(tuple, batch["image_grid_thw"].tolist()))
    assert not {"image_grid_thw", "mm_token_type_ids"} & prepared.keys()


def on_host(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value


def to(device: torch.device, batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def test_images_without_text_between_them_each_have_their_place():
    model = vision_model("qwen2_vl")
    token = model.config.image_token_id
    batch = {
        "input_ids": torch.tensor([[5, *[token] * (2 + 3), 6]]),
        "image_grid_thw": torch.tensor([(1, 2, 4), (1, 6, 2)]),
    }
    positions = host_inputs(model)(batch)["position_ids"][:, 0]
    assert positions.tolist() == [
        [0, 1, 1, 3, 3, 3, 6], [0, 1, 1, 3, 4, 5, 6], [0, 1, 2, 3, 3, 3, 6]
    ]  # fmt: skip
    assert MERGE == 2


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", QWEN)
def test_a_prepared_batch_takes_the_same_step_and_waits_for_nothing(with_lora, family, padded):
    model = with_lora(vision_model(family), tuned=True)
    batch = vision_batch(family, padded=padded)
    theirs = take_step(model, batch)
    patched = copy.deepcopy(model)
    patch(patched, device="any")
    assert has_fused_head(patched)
    prepare = pickle.loads(pickle.dumps(host_inputs(patched)))  # as for a loader's process
    prepared = to(model.device, prepare({k: on_host(v) for k, v in batch.items()}))
    prepared["attention_mask"] = CAUSAL  # rows are padded on the right
    assert_same(take_fused_step(patched, prepared), theirs, 1e-4)
    plain = {**prepared, "attention_mask": batch.get("attention_mask")}
    assert_same(take_step(patched, plain), theirs, 1e-4, batch.get("attention_mask"))
    version = LAYOUT.version
    with no_waits():
        forward_loss(patched, prepared).backward()
    assert LAYOUT.version == version


def forward_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    from tunebook.engine import LossRequest

    given = {name: value for name, value in batch.items() if name != "labels"}
    request = LossRequest(batch["labels"], divisor=10)
    return model(**given, use_cache=False, fused_loss=request).loss


def test_without_images_only_positions_are_given():
    model = vision_model("qwen2_5_vl")
    patch(model, device="any")
    batch = {"input_ids": torch.arange(3, 12)[None], "labels": torch.arange(3, 12)[None]}
    prepared = host_inputs(model)(batch)
    assert prepared.keys() == {"input_ids", "labels", "position_ids"}
    prepared = to(model.device, prepared)
    expected = take_step(model, to(model.device, batch))
    assert_same(take_fused_step(model, {**prepared, "attention_mask": CAUSAL}), expected, 1e-4)


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_other_models_take_their_batches_as_they_are(family):
    batch = vision_batch(family)
    assert host_inputs(vision_model(family))(batch) is batch


def test_tables_that_are_given_up_end_captured_graphs(monkeypatch):
    import tunebook.engine.image_inputs as inputs

    monkeypatch.setattr(inputs, "_MOST", 2)
    model = vision_model("qwen2_5_vl")
    tower, device = model.model.visual, model.device
    first = inputs._tables_of(tower, ((1, 4, 4),), device)
    inputs._tables_of(tower, ((1, 4, 8),), device)
    again = inputs._tables_of(tower, ((1, 4, 4),), device)
    assert again["position_ids"] is first["position_ids"]
    version = LAYOUT.version
    inputs._tables_of(tower, ((1, 8, 4),), device)
    assert LAYOUT.version == version + 1
    assert len(inputs._TABLES[tower]) == 2


def test_a_wait_would_be_seen_forward_and_backward():
    model = vision_model("qwen2_5_vl")
    with pytest.raises(AssertionError, match="waits"), no_waits():
        model(**vision_batch("qwen2_5_vl"), use_cache=False)
    source = torch.ones(4, requires_grad=True)
    scattered = torch.zeros(4).masked_scatter(torch.tensor([True, False, True, False]), source)
    with pytest.raises(AssertionError, match="waits"), no_waits():
        scattered.sum().backward()
