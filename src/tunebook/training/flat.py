"""An optimizer over one flat buffer: hundreds of small adapter tensors become views into a few long ones.

Updates, clears and counts launches by buffer instead of by tensor, with the numbers of the optimizer
that it wraps. Knows parameters by name; knows nothing of losses, recipes or events.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from tunebook.errors import CheckpointUnsuitable
from tunebook.training.optimizers import name_of

_ALIGNMENT = 256  # elements: bitsandbytes' blocks of 8-bit state then hold one tensor each
_SMALLEST_8BIT_STATE = 4096  # elements: bitsandbytes keeps smaller tensors' state in 32 bit
_FLATTENED = {  # those that treat each value for itself, or each block of 256
    "adagrad",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "adamw_torch",
    "adamw_torch_fused",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
    "sgd",
}

Named = tuple[str, nn.Parameter]


@dataclass
class FlatBuffer:
    """One flat parameter and its gradient, and the model's parameters that are views into it.

    Attributes:
        parameter: (elements,), with `.grad`; zero between the tensors.
        weight_decay: of all its tensors.
        small: whether all are too small for an 8-bit state.
        members: of each tensor its name, the model's parameter, and the views of value and gradient.
    """

    parameter: nn.Parameter
    weight_decay: float
    small: bool
    members: list[tuple[str, nn.Parameter, torch.Tensor, torch.Tensor]] = field(
        default_factory=list
    )

    @classmethod
    def of(cls, named: Sequence[Named], weight_decay: float, *, small: bool) -> FlatBuffer:
        """A buffer that takes over these parameters' values, gradients and storage."""
        sizes = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for _, p in named]
        values = torch.zeros(sum(sizes), dtype=named[0][1].dtype, device=named[0][1].device)
        buffer = cls(nn.Parameter(values), weight_decay, small)
        gradient = torch.zeros_like(values)
        buffer.parameter.grad = gradient
        pieces = zip(named, torch.split(values, sizes), torch.split(gradient, sizes), strict=True)
        for (name, parameter), value, grad in pieces:
            count, shape = parameter.numel(), parameter.shape
            views = value[:count].view(shape), grad[:count].view(shape)
            buffer.members.append((name, parameter, *views))
        buffer.attach()
        return buffer

    @torch.no_grad()
    def attach(self) -> None:
        """Make every value and gradient a view again; what was put in a view's place is copied.

        A gradient of None counts as zero.
        """
        cleared = all(parameter.grad is None for _, parameter, _, _ in self.members)
        if cleared:
            self.gradient.zero_()
        for _, parameter, value, gradient in self.members:
            if parameter.data_ptr() != value.data_ptr():
                parameter.data = value.copy_(parameter.data)
            if parameter.grad is gradient:
                continue
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
            elif not cleared:
                gradient.zero_()
            parameter.grad = gradient

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Clear all gradients by one write."""
        for _, parameter, _, gradient in self.members:
            if parameter.grad is not gradient:
                parameter.grad = gradient
        self.gradient.zero_()

    def layout(self) -> list[list[Any]]:
        """Name and shape of each tensor, in order."""
        return [[name, list(parameter.shape)] for name, parameter, _, _ in self.members]

    @property
    def gradient(self) -> torch.Tensor:
        """(elements,), which the members' gradients are views of."""
        gradient = self.parameter.grad
        assert gradient is not None
        return gradient


class FlatAdapter:
    """The trainable parameters of a model in flat buffers: one for each weight decay, dtype, device.

    Args:
        groups: weight decay, and names and parameters, as for the optimizer. The parameters stay the
            model's own objects; their storage becomes a part of a buffer.
        small_below: tensors of fewer elements get buffers of their own.
    """

    def __init__(
        self, groups: Iterable[tuple[float, Sequence[Named]]], *, small_below: int = 0
    ) -> None:
        sorted_out: dict[tuple[Any, ...], list[Named]] = {}
        for weight_decay, named in groups:
            for name, parameter in named:
                small = parameter.numel() < small_below
                key = (weight_decay, small, parameter.dtype, parameter.device)
                sorted_out.setdefault(key, []).append((name, parameter))
        self.buffers = [
            FlatBuffer.of(named, key[0], small=key[1]) for key, named in sorted_out.items()
        ]

    def attach(self) -> None:
        """Heal what others have done to the views; see `FlatBuffer.attach`."""
        for buffer in self.buffers:
            buffer.attach()

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for buffer in self.buffers:
            buffer.zero_grad()

    def param_groups(self) -> list[dict[str, Any]]:
        """What an optimizer is made of: each flat parameter with its weight decay."""
        return [
            {"params": [buffer.parameter], "weight_decay": buffer.weight_decay}
            for buffer in self.buffers
        ]

    def layout(self) -> list[list[list[Any]]]:
        """Name and shape of each tensor, by buffer and in order."""
        return [buffer.layout() for buffer in self.buffers]


class FlatOptimizer(torch.optim.Optimizer):
    """An optimizer over the flat buffers of an adapter.

    `zero_grad` keeps the gradients as views. If gradients are set to None elsewhere, call `attach`
    before the next backward pass, so that they are made in place; `step` copies them at the latest,
    which is too late for a scale that was taken out of the buffers.
    A tensor without a gradient is one whose gradient is zero.

    Args:
        adapter: the buffers.
        inner: the optimizer over `adapter.param_groups()`.
    """

    def __init__(self, adapter: FlatAdapter, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.adapter = adapter
        self.inner = inner
        self._share()

    def attach(self) -> None:
        """Make every gradient a view again; cheap where they are."""
        self.adapter.attach()

    def flat_parameters(self) -> list[nn.Parameter]:
        """The buffers as parameters, each with its gradient."""
        return [buffer.parameter for buffer in self.adapter.buffers]

    def gradients(self) -> list[torch.Tensor]:
        """Copies of the gradients of all buffers, in the host's memory: the device's is planned without."""
        return [buffer.gradient.detach().to("cpu", copy=True) for buffer in self.adapter.buffers]

    def restore(self, gradients: list[torch.Tensor] | None) -> None:
        """Put such copies back; None clears all."""
        self.adapter.zero_grad()
        for buffer, gradient in zip(self.adapter.buffers, gradients or (), strict=False):
            buffer.gradient.copy_(gradient)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every buffer."""
        self.adapter.attach()
        if closure is None and _waits_for_the_device(self.inner):
            self._step_without_waiting()
            return None
        return self.inner.step(closure)

    @torch.no_grad()
    def _step_without_waiting(self) -> None:
        """What bitsandbytes' `step` does, without its wait for the device after each tensor."""
        inner: Any = self.inner
        if not inner.initialized:
            inner.check_overrides()
            inner.to_gpu()
            inner.initialized = True
        for number, group in enumerate(inner.param_groups):
            for index, parameter in enumerate(group["params"]):
                if not inner.state[parameter]:
                    inner.init_state(group, parameter, number, index)
                inner.update_step(group, parameter, number, index)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, which stay views whatever is asked."""
        self.adapter.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's, with names and shapes of the tensors it belongs to."""
        return {**self.inner.state_dict(), "layout": self.adapter.layout()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            CheckpointUnsuitable: it belongs to tensors of other names, shapes or order.
        """
        inner = dict(state_dict)
        if (
            difference := _difference(inner.pop("layout", None), self.adapter.layout())
        ) is not None:
            raise CheckpointUnsuitable(
                "The checkpoint's optimizer state does not fit this adapter.",
                difference,
                "resume with the recipe that the checkpoint was made with, or start a new run.",
            )
        self.inner.load_state_dict(inner)
        self._share()

    def _share(self) -> None:
        # the very objects: schedulers change the groups, and loading replaces both
        self.param_groups, self.state = self.inner.param_groups, self.inner.state


def flat_optimizer(
    model: Any, args: TrainingArguments, decayed: Iterable[str]
) -> FlatOptimizer | None:
    """The optimizer that `args` names, over flat buffers; None where it would not be the same.

    Args:
        model: its trainable parameters are flattened.
        args: `optim`, `learning_rate`, `weight_decay` and the like.
        decayed: names of the parameters that weight decay applies to.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if name_of(args) not in _FLATTENED or not named:
        return None
    if any(not _plain(parameter) for _, parameter in named) or _trains_embedding(model):
        return None
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    in_8_bit = options.get("optim_bits") == 8
    names = set(decayed)
    groups = [
        (args.weight_decay, [item for item in named if item[0] in names]),
        (0.0, [item for item in named if item[0] not in names]),
    ]
    adapter = FlatAdapter(groups, small_below=_SMALLEST_8BIT_STATE if in_8_bit else 0)
    for buffer in adapter.buffers if in_8_bit else ():
        if buffer.small:
            _keep_state_in_32_bit(buffer.parameter)
    return FlatOptimizer(adapter, kind(adapter.param_groups(), **options))


def _waits_for_the_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is one of bitsandbytes' without paging, which needs the wait."""
    return type(optimizer).__module__.startswith("bitsandbytes") and not optimizer.is_paged  # type: ignore[attr-defined]


def _plain(parameter: nn.Parameter) -> bool:
    return (
        type(parameter) is nn.Parameter
        and type(parameter.data) is torch.Tensor
        and parameter.layout == torch.strided
        and parameter.dtype.is_floating_point
    )


def _trains_embedding(model: nn.Module) -> bool:
    """Transformers keeps the 8-bit optimizers' state of an embedding in 32 bit."""
    return any(
        isinstance(module, nn.Embedding) and module.weight.requires_grad
        for module in model.modules()
    )


def _keep_state_in_32_bit(parameter: nn.Parameter) -> None:
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    manager: Any = GlobalOptimManager.get_instance()  # type: ignore[no-untyped-call]
    manager.override_config(parameter, "optim_bits", 32)
    # it is found by id, which another tensor may have later
    weakref.finalize(parameter, manager.pid2config.pop, id(parameter), None)


def _difference(saved: Any, here: list[list[list[Any]]]) -> str | None:
    """What differs first between two layouts, in words."""
    if saved is None:
        return "it names no tensors: another optimizer wrote it."
    theirs, ours = ([item for buffer in layout for item in buffer] for layout in (saved, here))
    for before, now in zip(theirs, ours, strict=False):
        if list(before) != now:
            return f"it has {before[0]} {before[1]} where the adapter has {now[0]} {now[1]}."
    if len(theirs) != len(ours):
        return f"it has {len(theirs)} tensors, the adapter has {len(ours)}."
    if [len(buffer) for buffer in saved] != [len(buffer) for buffer in here]:
        return "its tensors are grouped otherwise, as by another optimizer or weight decay."
    return None
