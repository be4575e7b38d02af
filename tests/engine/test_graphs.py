"""Steps replayed as CUDA graphs; which steps are captured is tested without a GPU."""

from __future__ import annotations

import pytest
import torch

from tunebook.engine import StepGraphs
from tunebook.engine.graphs import _Captured

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="about CUDA graphs")


class _Recorder(StepGraphs):
    """Captures nothing: a replay adds the shape to `replayed`."""

    def __init__(self, step, guard=lambda: None):
        super().__init__(step, guard)
        self.replayed = []

    def _capture(self, key, inputs):
        recorder, shape = self, tuple(inputs["x"].shape)

        class Graph:
            def replay(self):
                recorder.replayed.append(shape)

        copies = {name: value.clone() for name, value in inputs.items()}
        self._graphs[key] = _Captured(Graph(), copies, (copies["x"],))
        return self._graphs[key]


def test_a_shape_is_replayed_from_its_fourth_step_on():
    called = []
    graphs = _Recorder(lambda inputs: (called.append(inputs["x"]), inputs["x"])[1:])
    for number in range(6):
        (output,) = graphs({"x": torch.full((2,), float(number))})
        assert torch.equal(output, torch.full((2,), float(number)))
    graphs({"x": torch.zeros(3)})
    assert len(called) == 4
    assert graphs.replayed == [(2,)] * 3


def test_what_the_guard_sees_belongs_to_the_shape():
    keep = ["all"]
    graphs = _Recorder(lambda inputs: (inputs["x"],), guard=lambda: keep[0])
    for _ in range(4):
        graphs({"x": torch.zeros(2)})
    keep[0] = "nothing"
    graphs({"x": torch.zeros(2)})
    assert len(graphs.replayed) == 1


def test_only_a_few_shapes_are_captured():
    graphs = _Recorder(lambda inputs: (inputs["x"],))
    for size in range(1, 12):
        for _ in range(4):
            graphs({"x": torch.zeros(size)})
    assert len(graphs.replayed) == 8


def test_cleared_graphs_are_captured_anew():
    graphs = _Recorder(lambda inputs: (inputs["x"],))
    for _ in range(4):
        graphs({"x": torch.zeros(2)})
    graphs.clear()
    graphs({"x": torch.zeros(2)})
    assert len(graphs.replayed) == 1


@ON_A_GPU
def test_a_replayed_step_gives_the_same_loss_and_gradients(tiny_model, with_lora):
    from tunebook.engine import CAUSAL, LossRequest, patch

    model = with_lora(tiny_model("llama").to(torch.bfloat16), tuned=True).train()
    patch(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)

    def step(inputs):
        request = LossRequest(inputs["input_ids"])
        loss = model(input_ids=inputs["input_ids"], attention_mask=CAUSAL, fused_loss=request).loss
        loss.backward()
        return (loss.detach(),)

    def results(run, ids):
        for parameter in trainable:
            parameter.grad.zero_()
        (loss,) = run({"input_ids": ids})
        return [loss.clone(), *(p.grad.clone() for p in trainable)]

    graphs = StepGraphs(step)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        ids = torch.randint(3, 300, (2, 64), generator=generator).cuda()
        replayed, plain = results(graphs, ids), results(step, ids)
        for ours, theirs in zip(replayed, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)
        with torch.no_grad():  # an update must be seen by the graph
            for parameter in trainable:
                parameter.add_(parameter.grad, alpha=-0.1)
    assert graphs.failure is None
    assert len(graphs._graphs) == 1


@ON_A_GPU
def test_a_step_that_cannot_be_captured_is_run_as_it_is():
    graphs = StepGraphs(lambda inputs: (inputs["x"] * float(inputs["x"].sum()),))  # waits
    for _ in range(6):
        (output,) = graphs({"x": torch.ones(3, device="cuda")})
        assert torch.equal(output, torch.full((3,), 3.0, device="cuda"))
    assert graphs.failure is not None
    assert torch.rand(3, device="cuda").isfinite().all()  # the generator is usable again
