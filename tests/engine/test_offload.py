"""Inputs of layers wait in the host's memory: the same step, less memory, whatever goes wrong halfway.

Without a GPU copies are made at once, or by a lane that makes them as late as it may: at the join.
The same tests run on a GPU with real streams, and some more with graphs and the allocator's peak.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

import pytest
import torch
from families import DEVICE, FAMILIES
from steps import Batch, distance, random_batch, take_fused_step, take_step, with_lengths

from tunebook.engine import (
    CAUSAL,
    LayerMemory,
    LossRequest,
    StepGraphs,
    fused_layers,
    host_bytes,
    patch,
    release,
    spend,
)
from tunebook.engine.attention import attend
from tunebook.engine.decoder import ALL, NOTHING, Keep, berth_of
from tunebook.engine.decoder_blocks import MLPBlock
from tunebook.engine.direct_attention import Attention
from tunebook.engine.linear_group import LAYOUT
from tunebook.engine.offload import HostStore, Lane, Stows, slot_bytes
from tunebook.training.memory import measure_step_memory

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="about CUDA streams")
KEEPS = {
    "nothing": NOTHING,
    "sums": replace(NOTHING, residual=True),
    "output": Keep(attention=False, gate_up=False, normed=False),
    "attention": Keep(gate_up=False, normed=False),
    "gate and up": Keep(normed=False),
    "all": ALL,
    "tiles": replace(NOTHING, tile=7),
}
LAYERS = 4


@pytest.fixture
def batch() -> Batch:
    return random_batch("plain", DEVICE)


@pytest.fixture
def patched(tiny_model, with_lora):
    """A patched model of four layers that learns."""

    def make(family: str = "llama", **lora: Any) -> Any:
        sizes: dict[str, Any] = {"num_hidden_layers": LAYERS}
        for name in ("layer_types", "no_rope_layers"):
            if name in FAMILIES[family]:
                sizes[name] = FAMILIES[family][name] * 2
        model = with_lora(tiny_model(family, **sizes), tuned=True, **lora).train()
        patch(model, device="any")
        return model

    return make


def offload(model: Any, count: int, keep: Keep = NOTHING, what: Stows = "inputs") -> None:
    """The inputs of the first `count` layers go to the host, or more of what they keep."""
    layers = len(fused_layers(model))
    wanted: list[Stows] = [what if index < count else "nothing" for index in range(layers)]
    spend(model, [LayerMemory(keep, offload=one) for one in wanted])


@dataclass(frozen=True, kw_only=True)
class ByHand(Attention):
    """An attention without a graph, as cuDNN's, of any kind: its backward runs it again."""

    how: dict[str, Any]
    by_hand = True

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in self.inputs]
            output = attend(*leaves, scale=self.scale, **self.how)
            return torch.autograd.grad(output, leaves, upstream)


@pytest.fixture
def by_hand(monkeypatch):
    """Attention whose q, k, v and output are plain tensors, with a softcap or a mask too."""

    def forward(q: Any, k: Any, v: Any, *, learns: bool, scale: float, **how: Any) -> Attention:
        with torch.no_grad():
            return ByHand(attend(q, k, v, scale=scale, **how), q, k, v, scale, how=how)

    monkeypatch.setattr("tunebook.engine.decoder_blocks.attention_forward", forward)


def store_of(model: Any) -> HostStore:
    berth = berth_of(fused_layers(model)[0])
    assert berth is not None
    return berth.store


def forward(model: Any, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(**batch, use_cache=False).loss
    return loss


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """To the last bit; on a GPU attention adds up in another order each time."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.any(), name
        same = torch.equal(ours[name], gradient)
        assert same or (DEVICE == "cuda" and distance(ours[name], gradient) < 1e-5), name


class LateLane(Lane):
    """Copies nothing before it must, as a device that is busy elsewhere; knows what it was not given.

    `lost` counts tensors that were gone, or written to, before their copy was joined.
    """

    def __init__(self) -> None:
        self.pinned = False
        self.waiting: list[tuple[int, Any, Any, int]] = []
        self.lost = self.copies = self.abandoned = self.ahead = 0

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.copies += 1
        self.waiting.append((self.copies, ref(target), ref(source), source._version))

    def mark(self) -> int:
        return self.copies

    def join(self, mark: int | None = None) -> None:
        later = [one for one in self.waiting if mark is not None and one[0] > mark]
        for _, target, source, version in self.waiting[: len(self.waiting) - len(later)]:
            to, of = target(), source()
            if to is None or of is None or of._version != version:
                self.lost += 1
            else:
                to.copy_(of)
        self.waiting = later

    def abandon(self, tensor: torch.Tensor) -> None:
        self.abandoned += 1


def with_late_copies(model: Any, count: int) -> LateLane:
    """Offload by a lane that is as late as it may be."""
    offload(model, count)
    store_of(model).lane = lane = LateLane()
    return lane


# --------------------------------------------------------------------------------- the same step


@pytest.mark.parametrize("kept", KEEPS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_every_level_takes_the_same_step(patched, batch, family, kept):
    model = patched(family)
    offload(model, 0, KEEPS[kept])
    expected = take_step(model, batch)
    for count in (1, LAYERS - 2, LAYERS):
        offload(model, count, KEEPS[kept])
        ours = take_step(model, batch)
        assert ours.loss == pytest.approx(expected.loss, rel=1e-6 if DEVICE == "cuda" else 0)
        assert_equal(ours.gradients, expected.gradients)


@pytest.mark.parametrize("kind", ["padded left", "packed"])
@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "smollm3"])
def test_every_family_takes_the_same_step(patched, family, kind):
    model = patched(family)
    batch = random_batch(kind, DEVICE)
    if kind == "packed":
        batch = with_lengths(model, batch)
    offload(model, 0)
    expected = take_fused_step(model, batch)
    offload(model, LAYERS - 1)
    ours = take_fused_step(model, batch)
    assert ours.loss == pytest.approx(expected.loss, rel=1e-6 if DEVICE == "cuda" else 0)
    assert_equal(ours.gradients, expected.gradients)


@pytest.mark.parametrize("frozen", [False, True], ids=["learning", "four bits"])
def test_dropout_and_packed_weights_take_the_same_step(
    tiny_model, with_lora, in_four_bits, batch, frozen
):
    base = tiny_model("llama", num_hidden_layers=LAYERS)
    base = in_four_bits(base) if frozen else base
    model = with_lora(base, tuned=True, lora_dropout=0.3)
    patch(model, device="any")
    steps = []
    for count in (0, 2, LAYERS):
        offload(model, count)
        steps.append(take_step(model, batch, seed=5).gradients)
    for other in steps[1:]:
        assert_equal(other, steps[0])


@pytest.mark.parametrize("what", ["sums", "output", "attention"])
@pytest.mark.parametrize("kept", KEEPS)
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "phi3"])
def test_whatever_a_level_keeps_can_wait_in_the_host(patched, batch, by_hand, family, kept, what):
    model = patched(family)
    offload(model, 0, KEEPS[kept])
    expected = take_step(model, batch)
    offload(model, LAYERS - 1, KEEPS[kept], what)
    store_of(model).lane = lane = LateLane()
    for _ in range(2):
        ours = take_step(model, batch)
        assert ours.loss == pytest.approx(expected.loss, rel=1e-6 if DEVICE == "cuda" else 0)
        assert_equal(ours.gradients, expected.gradients)
    assert lane.lost == lane.abandoned == 0
    keep = KEEPS[kept]
    stowed = 1 + keep.residual
    if what != "sums" and (keep.output or keep.attention):
        stowed += 1 + (family == "gemma2")  # the output, and the rows before a norm behind
    if what == "attention" and keep.attention:
        stowed += 1 + (family == "qwen3")  # q, k and v, and before their norm
    # an output by a plain form (softcap; groups of heads on a GPU) is not laid out by rows, which are
    # a copy then
    plain = family == "gemma2" or DEVICE == "cuda"
    assert lane.copies / (2 * 2 * (LAYERS - 1)) in (stowed, stowed + plain)


def test_copies_may_be_as_late_as_the_stream_allows(patched, batch):
    model = patched()
    offload(model, 0)
    expected = take_step(model, batch)
    lane = with_late_copies(model, LAYERS - 1)
    for _ in range(3):
        ours = take_step(model, batch)
        assert_equal(ours.gradients, expected.gradients)
    assert lane.copies == 3 * 2 * (LAYERS - 1)
    assert lane.lost == lane.abandoned == 0
    assert not lane.waiting  # all is joined when the step ends, as a capture demands


def test_each_input_is_sent_for_before_the_layer_behind_it_works(patched, batch, monkeypatch):
    model = patched()
    offload(model, LAYERS - 1)
    order: list[str] = []
    for owner, name in (
        (Lane, "copy"),
        (Lane, "join"),
        (MLPBlock, "forward"),
        (MLPBlock, "backward"),
    ):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), order))
    loss = forward(model, batch)
    # each layer gives up what the one before it stowed: its copies had two forwards to end in
    assert order == [
        "copy",
        "forward",
        *["copy", "forward", "join"] * (LAYERS - 2),
        "forward",
        "join",
    ]
    order.clear()
    loss.backward()
    assert order == ["copy", "backward", "join"] * (LAYERS - 1) + ["backward"]


def noted(function: Any, order: list[str]) -> Any:
    """The function, which adds its name to `order` when it begins."""

    def call(*args: Any, **given: Any) -> Any:
        order.append(function.__name__)
        return function(*args, **given)

    return call


def test_a_lane_forks_from_the_stream_that_computes_and_joins_it(monkeypatch):
    """The calls of the real lane, on streams that write down what is asked of them."""
    asked: list[str] = []

    class Stream:
        device = torch.device("cuda", 0)

        def __init__(self, name: Any = None) -> None:
            self.name = name if isinstance(name, str) else "copies"

        def wait_stream(self, other: Any) -> None:
            asked.append(f"{self.name} waits for {other.name}")

        def record_event(self) -> str:
            return f"a mark of {self.name}"

        def wait_event(self, event: str) -> None:
            asked.append(f"{self.name} waits for {event}")

    computing, source = Stream("computing"), torch.arange(6.0)

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        asked.append(f"on {stream.name}")
        yield
        asked.append("off")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    lane, target = Lane(torch.device("cuda")), torch.zeros(6)
    assert lane.pinned
    lane.copy(target, source)
    assert torch.equal(target, source)
    assert asked == ["copies waits for computing", "on copies", "off"]
    asked.clear()
    mark = lane.mark()
    lane.join(mark)
    lane.join()
    assert asked == ["computing waits for a mark of copies", "computing waits for copies"]


# ------------------------------------------------------------------------- steps of other shapes


def test_buffers_are_made_once_and_used_again(patched, batch):
    model = patched()
    offload(model, 3)
    assert host_bytes(model) == 0
    take_step(model, batch)
    made = host_bytes(model)
    rows = batch["input_ids"].numel() * 64 * 4
    assert made == 3 * slot_bytes(rows)
    addresses = {buffer.data_ptr() for buffer in store_of(model)._free}
    version = LAYOUT.version
    for _ in range(3):
        take_step(model, batch)
    assert {buffer.data_ptr() for buffer in store_of(model)._free} == addresses
    assert (host_bytes(model), LAYOUT.version) == (made, version)


def test_longer_batches_replace_buffers_and_shorter_ones_use_them(patched):
    model = patched()
    offload(model, 0)
    batches = [random_batch("plain", DEVICE, seed=seed) for seed in (1, 2, 3)]
    batches[1] = {name: value[:, :5] for name, value in batches[1].items()}
    batches[2] = {name: value.repeat(2, 2) for name, value in batches[2].items()}
    expected = [take_step(model, given).gradients for given in batches]
    offload(model, 3)
    sizes = []
    for _ in range(2):
        for given, wanted in zip(batches, expected, strict=True):
            version = LAYOUT.version
            assert_equal(take_step(model, given).gradients, wanted)
            sizes.append(host_bytes(model))
            # a graph that holds an address must not be replayed once the buffer is gone
            assert (LAYOUT.version > version) == (len(sizes) == 3)
    assert sizes == [sizes[0], sizes[0], 4 * sizes[0], *[4 * sizes[0]] * 3]


def test_gradients_of_two_batches_add_up(patched, batch):
    model = patched("qwen3")
    second = random_batch("padded right", DEVICE, seed=4)
    sums = []
    for count in (0, 3):
        offload(model, count)
        for given in (batch, second):
            forward(model, given).backward()
        sums.append(gradients(model))
        model.zero_grad(set_to_none=True)
    assert_equal(sums[1], sums[0])


def test_two_forwards_before_their_backwards_have_buffers_of_their_own(patched, batch):
    model = patched()
    second = random_batch("padded left", DEVICE, seed=9)
    found = []
    for count in (0, 3):
        offload(model, count)
        first, other = forward(model, batch), forward(model, second)
        first.backward()
        alone = gradients(model)
        other.backward()
        found.append((alone, gradients(model)))
        model.zero_grad(set_to_none=True)
        del first, other
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert_equal(ours, theirs)
    assert len(store_of(model)._free) == 6


def test_a_graph_that_is_kept_can_be_run_again(patched, batch):
    model = patched()
    offload(model, 0)
    expected = take_step(model, batch).gradients
    offload(model, 3)
    loss = forward(model, batch)
    loss.backward(retain_graph=True)
    assert_equal(gradients(model), expected)
    model.zero_grad(set_to_none=True)
    loss.backward()
    assert_equal(gradients(model), expected)


def test_nothing_is_offloaded_where_nothing_is_learnt(patched, batch):
    model = patched()
    offload(model, 3)
    with torch.no_grad():
        forward(model, batch)
    assert host_bytes(model) == 0


def test_layers_that_transformers_recomputes_are_left_alone(patched, batch):
    model = patched()
    offload(model, 3)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    forward(model, batch).backward()
    assert host_bytes(model) == 0


# ------------------------------------------------------------------------------ when things fail


class Full(RuntimeError):
    """Stands for the device's out-of-memory error."""


def fail_at(monkeypatch, method: str, layer: int) -> None:
    """The MLP of one layer finds no memory, in its forward or backward, once."""
    real, calls = getattr(MLPBlock, method), []

    def failing(self, *args, **given):
        calls.append(1)
        if len(calls) == layer:
            raise Full
        return real(self, *args, **given)

    monkeypatch.setattr(MLPBlock, method, failing)


@pytest.mark.parametrize("method", ["forward", "backward"])
@pytest.mark.parametrize("layer", [1, 2, 4])
def test_a_step_that_fails_halfway_leaves_all_buffers_free(
    patched, batch, monkeypatch, method, layer
):
    model = patched()
    offload(model, 0)
    expected = take_step(model, batch).gradients
    lane = with_late_copies(model, 3)
    take_step(model, batch)
    made = host_bytes(model)
    with monkeypatch.context() as patching:
        fail_at(patching, method, layer)
        with pytest.raises(Full):
            forward(model, batch).backward()
    model.zero_grad(set_to_none=True)
    gc.collect()
    assert len(store_of(model)._free) == 3
    # copies were under way, whose memory waits for them: of the last two layers, or back of one
    ahead = {"forward": {1: 1, 2: 2, 4: 1}, "backward": {1: 1, 2: 1, 4: 0}}
    assert lane.abandoned == ahead[method][layer]
    lane.waiting.clear()
    assert_equal(take_step(model, batch).gradients, expected)
    assert host_bytes(model) == made
    assert lane.lost == 0


def test_where_the_host_has_no_room_inputs_stay_on_the_device(patched, batch, monkeypatch, caplog):
    model = patched()
    offload(model, 0)
    expected = take_step(model, batch).gradients
    offload(model, 3)
    real = torch.empty

    def empty(*size, **given):
        if "pin_memory" in given and host_bytes(model):
            raise RuntimeError("CUDA error: out of memory\nmore")
        return real(*size, **given)

    monkeypatch.setattr(torch, "empty", empty)
    assert_equal(take_step(model, batch).gradients, expected)
    store = store_of(model)
    assert host_bytes(model) == store._free[0].nbytes  # one was given
    assert store.failure == "CUDA error: out of memory"
    assert len([r for r in caplog.records if "stays on the device" in r.message]) == 1


def test_what_was_spent_is_given_back(patched, batch):
    model = patched()
    offload(model, 3)
    take_step(model, batch)
    store, version = store_of(model), LAYOUT.version
    offload(model, 2)
    assert store_of(model) is store  # fewer layers, or more: the buffers serve on
    loss = forward(model, batch)
    offload(model, 0)
    assert host_bytes(model) == 0
    assert LAYOUT.version > version
    loss.backward()  # what is under way keeps its own
    del loss
    assert not store._free
    offload(model, 3)
    take_step(model, batch)
    store = store_of(model)
    release(model)
    assert not store._free
    assert host_bytes(model) == 0


def test_a_buffer_is_as_large_as_pinned_memory_is_rounded_to():
    assert [slot_bytes(n) for n in (1, 2, 3, 4096, 4097)] == [1, 2, 4, 4096, 8192]


# ---------------------------------------------------------------------------------------- memory


def test_what_is_kept_after_the_forward_is_one_tensor_less_a_layer(patched, batch):
    model = patched()
    kept = []
    for count in range(LAYERS + 1):
        offload(model, count)
        forward(model, batch).backward()  # buffers are made here, and stay
        kept.append(kept_after_forward(model, batch))
    rows = batch["input_ids"].numel() * 64 * 4
    assert [kept[0] - bytes_ for bytes_ in kept] == [n * rows for n in range(LAYERS + 1)]


def kept_after_forward(model: Any, batch: Batch) -> int:
    """Device bytes that the graph of a forward holds."""
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        loss = forward(model, batch)
        held = torch.cuda.memory_allocated() - before
        del loss
        return held
    marker = 2**31  # higher than any peak before it

    def step() -> None:
        held = forward(model, batch), torch.empty(marker, dtype=torch.uint8)
        del held

    return measure_step_memory(step) - marker


# ---------------------------------------------------------------------------------------- on a GPU


@pytest.fixture
def large(tiny_model, with_lora) -> Any:
    """Eight layers in bfloat16; of 1024 ids in two rows the hidden states take 2 MiB a layer."""
    model = tiny_model("llama", num_hidden_layers=8, hidden_size=512, intermediate_size=1024,
                       num_attention_heads=8, max_position_embeddings=8192)  # fmt: skip
    model = with_lora(model.bfloat16(), tuned=True).train()
    patch(model)
    return model


def fused_step(model: Any) -> Any:
    def step(inputs: Any) -> tuple[torch.Tensor]:
        request = LossRequest(inputs["input_ids"])
        ids = inputs["input_ids"]
        loss = model(input_ids=ids, attention_mask=CAUSAL, use_cache=False, fused_loss=request).loss
        loss.backward()
        return (loss.detach(),)

    return step


def ids_of(length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 300, (2, length), generator=generator).cuda()


@ON_A_GPU
def test_buffers_are_pinned(large):
    offload(large, 6)
    fused_step(large)({"input_ids": ids_of(1024)})
    assert all(buffer.is_pinned() for buffer in store_of(large)._free)


@ON_A_GPU
def test_a_host_that_runs_ahead_takes_no_more_memory(large):
    """Six of eight inputs are gone at the peak, also when the device has not begun yet."""
    step, inputs, peaks = fused_step(large), {"input_ids": ids_of(8192)}, []
    for count, wait in ((0, 0), (6, 0), (6, 10**9)):
        offload(large, count)
        step(inputs)
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda._sleep(wait)
        step(inputs)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] - peaks[1] == pytest.approx(6 * 16 * 2**20, abs=8 * 2**20)
    assert peaks[2] == pytest.approx(peaks[1], abs=2**20)


@ON_A_GPU
@pytest.mark.parametrize("what", ["inputs", "output", "attention"])
def test_copies_beside_other_work_are_right(large, what):
    """The stream of the copies is kept busy, so that whatever does not wait for it reads too early."""
    step, inputs = fused_step(large), {"input_ids": ids_of(1024)}
    trainable = [p for p in large.parameters() if p.requires_grad]

    def results(busy: bool) -> list[torch.Tensor]:
        large.zero_grad(set_to_none=True)
        if busy:
            with torch.cuda.stream(store_of(large).lane._stream):
                torch.cuda._sleep(10**9)
        step(inputs)
        return [p.grad.clone() for p in trainable]

    keep = NOTHING if what == "inputs" else KEEPS["attention"]
    offload(large, 0, keep)
    expected = results(busy=False)
    offload(large, 7, keep, what)
    for busy in (False, True):
        for ours, theirs in zip(results(busy), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)


@ON_A_GPU
@pytest.mark.parametrize("what", ["inputs", "output", "attention"])
def test_a_step_with_offload_is_captured_and_replayed(large, what):
    trainable = [p for p in large.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    step = fused_step(large)
    graphs = StepGraphs(step, guard=lambda: LAYOUT.version)

    def results(run: Any, ids: torch.Tensor) -> list[torch.Tensor]:
        for parameter in trainable:
            parameter.grad.zero_()
        (loss,) = run({"input_ids": ids})
        return [loss.clone(), *(p.grad.clone() for p in trainable)]

    keeps = {"inputs": NOTHING, "output": KEEPS["output"], "attention": KEEPS["attention"]}
    offload(large, 6, keeps[what], what)
    for length, captures in ((512, 1), (1024, 2)):  # longer rows: other buffers, so other graphs
        for seed in range(6):
            ids = ids_of(length, seed)
            replayed, plain = results(graphs, ids), results(step, ids)
            for ours, theirs in zip(replayed, plain, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)
        assert graphs.failure is None
        assert graphs.captures == captures
        assert len(graphs._graphs) == 1
    made = host_bytes(large)
    del graphs
    release(large)
    hidden = 6 * 2 * 2**20
    assert made == hidden if what == "inputs" else made >= 3 * hidden


@ON_A_GPU
def test_a_captured_step_peaks_no_higher_than_one_that_is_not(large):
    """Memory that waits for another stream is given back only when a capture ends."""
    ids = {"input_ids": ids_of(8192)}
    peaks = []
    for count in (0, 6):
        offload(large, count)
        step = fused_step(large)
        step(ids)  # makes all buffers, after which nothing moves
        graphs = StepGraphs(step, guard=lambda: LAYOUT.version)
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(6):
            graphs(ids)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated())
        assert (graphs.failure, graphs.captures) == (None, 1)
        graphs.clear()
    assert peaks[0] - peaks[1] == pytest.approx(6 * 16 * 2**20, abs=8 * 2**20)
