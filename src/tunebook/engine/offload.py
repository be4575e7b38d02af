"""Keeps what layers save for their backward in pinned host memory, copied beside the computation.

Knows tensors, streams and the order of layers; knows no layer, no plan and no budget.

    forward    compute  | layer k ............. | layer k + 1 .........
               copies   | x(k) to the host .. |   | x(k + 1) to the host
    backward   compute  | layer k + 1 ......... | layer k .............
               copies   | x(k) to the device    | x(k - 1) to the device

What bounds the memory exactly: `Stowed.settle` makes the computing stream wait for the copy before the
tensor is given up, so that its memory is free in the order of that stream. Marking it as used by the
copies' stream (`record_stream`) would not: then the allocator asks whether the copy has ended when the
host gets there, and a host that runs ahead of the device is told no and takes new memory, as it does
all through a CUDA graph's capture. Nothing waits on the host, so a step can be captured: the copies
fork from the computing stream and are joined to it, between addresses that stay.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch

from tunebook.engine.linear_group import LAYOUT

logger = logging.getLogger(__name__)


class Lane:
    """Copies on a stream of their own, beside what the device computes; on a CPU at once."""

    def __init__(self, device: torch.device) -> None:
        self.pinned = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self.pinned else None  # type: ignore[no-untyped-call]

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy once all that was asked of the device up to now is done."""
        if self._stream is None:
            target.copy_(source)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def join(self) -> None:
        """Let what is asked of the device from now on begin after all copies so far."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def abandon(self, tensor: torch.Tensor) -> None:
        """Its memory is used again only after the copies so far, though nobody joins them."""
        if self._stream is not None:
            tensor.record_stream(self._stream)

    def synchronize(self) -> None:
        """Wait on the host until the device is done, replayed graphs included."""
        if self._stream is not None:
            torch.cuda.synchronize(self._stream.device)


class HostStore:
    """Buffers of host memory for one model's layers, made once and used again at every step.

    A buffer belongs to what was stowed in it until the graph of that forward is gone; then it serves
    again. A buffer's size is a power of two, which pinned memory is rounded to anyway, so that
    batches that get longer and longer make new ones a few times only.

    Args:
        device: of what is stowed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lane = Lane(device)
        self.failure: str | None = None
        """Why something stayed on the device; None if nothing had to."""
        self._free: list[torch.Tensor] = []
        self._nbytes = 0
        self._latest: ReferenceType[Stowed] | None = None
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return self._nbytes

    def stow(self, index: int, x: torch.Tensor) -> Stowed | None:
        """Start to copy layer `index`'s input to the host; None where that has no room for it."""
        buffer = self._take(x.nbytes)
        if buffer is None:
            return None
        stowed = Stowed(self, index, x.contiguous(), buffer)
        self._latest = ref(stowed)
        return stowed

    def latest(self, index: int) -> Stowed | None:
        """What was stowed last, if that is layer `index`'s input."""
        found = self._latest() if self._latest is not None else None
        return found if found is not None and found.index == index else None

    def give_back(self, buffer: torch.Tensor) -> None:
        """Take a buffer back, to be used again."""
        if not self._closed:
            self._free.append(buffer)

    def close(self) -> None:
        """Give the host its memory back; what is still stowed keeps its own until its graph is gone."""
        self._closed = True
        free, self._free = self._free, []
        self._drop(free)
        if self.lane.pinned:
            _empty_host_cache()

    def _take(self, nbytes: int) -> torch.Tensor | None:
        fitting = [
            (buffer.nbytes, at) for at, buffer in enumerate(self._free) if buffer.nbytes >= nbytes
        ]
        if fitting:
            return self._free.pop(min(fitting)[1])
        if self.failure is not None:  # asking again takes time, and a captured step must not
            return None
        if self._free:  # too small for today's batches
            self._drop([self._free.pop()])
        try:
            buffer = torch.empty(slot_bytes(nbytes), dtype=torch.uint8, pin_memory=self.lane.pinned)
        except RuntimeError as error:  # the host cannot spare, or not pin, so much
            self._report(error)
            return None
        self._nbytes += buffer.nbytes
        return buffer

    def _drop(self, buffers: list[torch.Tensor]) -> None:
        """Forget buffers; captured graphs that hold their addresses are not replayed any more."""
        LAYOUT.changed()
        self.lane.synchronize()
        self._nbytes -= sum(buffer.nbytes for buffer in buffers)

    def _report(self, error: RuntimeError) -> None:
        if self.failure is None:
            self.failure = str(error).splitlines()[0].rstrip(".")
            logger.warning(
                "The host has no room for the inputs of layers, so they stay on the device: %s",
                self.failure,
            )


class Stowed:
    """One tensor in host memory; made and taken on the thread and stream that compute.

    Attributes:
        index: of the layer that it is the input of.
    """

    def __init__(
        self, store: HostStore, index: int, source: torch.Tensor, buffer: torch.Tensor
    ) -> None:
        self.index = index
        self._store = store
        self._buffer = buffer
        self._host = buffer[: source.nbytes].view(source.dtype).view(source.shape)
        self._source: torch.Tensor | None = source
        self._arriving: torch.Tensor | None = None
        store.lane.copy(self._host, source)

    def settle(self) -> None:
        """Give the device's tensor up: what comes after waits for its copy."""
        self._store.lane.join()
        self._source = None

    def send_for(self) -> None:
        """Start to copy it back to the device, if that has not begun."""
        if self._arriving is None:
            self._arriving = torch.empty_like(self._host, device=self._store.device)
            self._store.lane.copy(self._arriving, self._host)

    def take(self) -> torch.Tensor:
        """The tensor on the device again, for the caller alone; may be asked for several times."""
        self.send_for()
        self._store.lane.join()
        taken, self._arriving = self._arriving, None
        assert taken is not None
        return taken

    def __del__(self) -> None:
        for tensor in (self._source, self._arriving):  # of a step that was given up halfway
            if tensor is not None:
                self._store.lane.abandon(tensor)
        self._store.give_back(self._buffer)


@dataclass(frozen=True)
class Berth:
    """One layer's place in the order: whether it stows its input, and which one comes back before.

    Attributes:
        index: of the layer among those that run fused.
        stows: whether this layer's own input is stowed; if not, the one before is sent for here.
    """

    store: HostStore
    index: int
    stows: bool

    def enter(self, x: torch.Tensor) -> tuple[Stowed | None, Stowed | None]:
        """At the start of a forward: its input on its way to the host, and that of the layer before."""
        before = self.store.latest(self.index - 1)
        return self.store.stow(self.index, x) if self.stows else None, before


def slot_bytes(nbytes: int) -> int:
    """Bytes of host memory that a tensor of `nbytes` takes: the next power of two."""
    return 1 << max(0, nbytes - 1).bit_length()


def _empty_host_cache() -> None:
    """Torch keeps pinned memory that is not used any more, and nobody else can have it."""
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is None:
        empty = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
    if empty is not None:
        empty()
