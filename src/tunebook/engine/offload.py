"""Keeps what layers save for their backward in pinned host memory, copied beside the computation.

Knows tensors, streams and the order of layers; knows no layer, no plan and no budget.

    forward    compute  | layer k ............. | layer k + 1 .........
               copies   | k's to the host ........ | k + 1's to the host ....
    backward   compute  | layer k + 1 ......... | layer k .............
               copies   | k's to the device     | k - 1's to the device

In both directions a layer's copies have the time of one layer, and what two layers stow is on the
device at most: its forward needs no more memory than its backward.

What bounds the memory exactly: `Cargo.settle` makes the computing stream wait for the copies before a
tensor is given up, so that its memory is free in the order of that stream. Marking it as used by the
copies' stream (`record_stream`) would not: then the allocator asks whether the copy has ended when the
host gets there, and a host that runs ahead of the device is told no and takes new memory, as it does
all through a CUDA graph's capture. Nothing waits on the host, so a step can be captured: the copies
fork from the computing stream and are joined to it, between addresses that stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal
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

    def mark(self) -> Any:
        """A place in the order of the copies, behind all so far."""
        return None if self._stream is None else self._stream.record_event()

    def join(self, mark: Any = None) -> None:
        """Let what is asked of the device from now on begin after all copies so far, or up to a mark."""
        if self._stream is None:
            return
        computing = torch.cuda.current_stream(self._stream.device)
        if mark is None:
            computing.wait_stream(self._stream)
        else:
            computing.wait_event(mark)

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
        self._latest: ReferenceType[Cargo] | None = None
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return self._nbytes

    def open(self, index: int) -> Cargo:
        """What layer `index` will stow in this forward."""
        cargo = Cargo(self, index)
        self._latest = ref(cargo)
        return cargo

    def stow(self, source: torch.Tensor) -> Stowed | None:
        """Start to copy a flat tensor to the host; None where that has no room for it."""
        buffer = self._take(source.nbytes)
        return None if buffer is None else Stowed(self, source, buffer)

    def latest(self, index: int) -> Cargo | None:
        """What was stowed last, if that is layer `index`'s."""
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
                "The host has no room for what layers keep, so it stays on the device: %s",
                self.failure,
            )


class Stowed:
    """One flat tensor in host memory; made and taken on the thread and stream that compute."""

    def __init__(self, store: HostStore, source: torch.Tensor, buffer: torch.Tensor) -> None:
        self._store = store
        self._buffer = buffer
        self._host = buffer[: source.nbytes]
        self._source: torch.Tensor | None = source
        self._arriving: torch.Tensor | None = None
        store.lane.copy(self._host, source)

    def give_up(self) -> None:
        """Let the device's memory go, once its copy was joined."""
        self._source = None

    def send_for(self) -> None:
        """Start to copy it back to the device, if that has not begun."""
        if self._arriving is None:
            self._arriving = torch.empty_like(self._host, device=self._store.device)
            self._store.lane.copy(self._arriving, self._host)

    def take(self) -> torch.Tensor:
        """What arrived, for the caller alone, once its copy was joined."""
        self.give_up()
        taken, self._arriving = self._arriving, None
        assert taken is not None
        return taken

    def __del__(self) -> None:
        for tensor in (self._source, self._arriving):  # of a step that was given up halfway
            if tensor is not None:
                self._store.lane.abandon(tensor)
        self._store.give_back(self._buffer)


@dataclass(frozen=True)
class Ticket:
    """Stands for a tensor whose memory was stowed."""

    place: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def over(self, arrived: torch.Tensor) -> torch.Tensor:
        """The tensor, over memory that came back."""
        return arrived.view(self.dtype).as_strided(self.shape, self.stride, self.offset)


class Cargo:
    """What one layer stows in one forward: memory, each piece once however many tensors lie in it.

    Attributes:
        index: of the layer.
    """

    def __init__(self, store: HostStore, index: int) -> None:
        self.index = index
        self._store = store
        self._pieces: list[Stowed] = []
        self._known: dict[int, int] = {}
        self._mark: Any = None

    def load(self, x: torch.Tensor) -> torch.Tensor | Ticket:
        """Start to copy a tensor's memory to the host; the tensor itself where that has no room."""
        storage = x.untyped_storage()
        place = self._known.get(storage.data_ptr())
        if place is None:
            flat = torch.empty(0, dtype=torch.uint8, device=x.device).set_(storage)
            piece = self._store.stow(flat)
            if piece is None:
                return x
            place = self._known[storage.data_ptr()] = len(self._pieces)
            self._pieces.append(piece)
        return Ticket(place, x.dtype, x.shape, x.stride(), int(x.storage_offset()))

    def seal(self) -> None:
        """Say that all is loaded."""
        self._known.clear()
        if self._pieces:  # else the copies' stream may stand outside of a capture
            self._mark = self._store.lane.mark()

    def settle(self) -> None:
        """Give the device's memory up: what comes after waits for the copies."""
        if self._pieces:
            self._store.lane.join(self._mark)
        for piece in self._pieces:
            piece.give_up()

    def send_for(self) -> None:
        """Start to copy all back to the device, if that has not begun."""
        for piece in self._pieces:
            piece.send_for()

    def take(self) -> list[torch.Tensor]:
        """All pieces on the device again, for the caller alone; may be asked for several times."""
        self.send_for()
        if self._pieces:
            self._store.lane.join()
        return [piece.take() for piece in self._pieces]


Stows = Literal["nothing", "inputs", "sums", "output", "attention"]
"""What of a layer, each with what stands before it: its input, the sum after the attention, the
attention's output, and q, k and v."""
_OUTPUT = frozenset({"output", "rows", "unnormed"})
_NAMES = {"output": _OUTPUT, "attention": _OUTPUT | {"q", "k", "v", "projected"}}
"""Fields of what an attention block keeps; its other tensors are small."""


@dataclass(frozen=True)
class Berth:
    """One layer's place in the order: what it stows, and whose cargo comes back before its own.

    Attributes:
        index: of the layer among those that run fused.
        stows: of this layer, as far as it keeps it; if nothing, the cargo of the layer before is
            sent for here all the same.
        last: whether no layer comes after it in which its copies could end.
    """

    store: HostStore
    index: int
    stows: Stows
    last: bool = False

    def enter(self) -> tuple[Cargo | None, Cargo | None]:
        """At the start of a forward: this layer's cargo, still empty, and that of the layer before."""
        before = self.store.latest(self.index - 1)
        return None if self.stows == "nothing" else self.store.open(self.index), before

    def leave(self, cargo: Cargo | None, before: Cargo | None) -> None:
        """At the end of a forward, with what `enter` gave: by now the layer before's copies have ended."""
        if before is not None:
            before.settle()
        if self.last and cargo is not None:
            cargo.settle()

    @property
    def sums(self) -> bool:
        """Whether the sum after the attention is stowed."""
        return self.stows not in ("nothing", "inputs")

    @property
    def attended(self) -> frozenset[str]:
        """Names of the tensors that are stowed of what the attention block keeps."""
        return _NAMES.get(self.stows, frozenset())


def loaded(kept: Any, cargo: Cargo, names: frozenset[str]) -> Any:
    """`kept` with tickets in place of its tensors of these names, however deep they lie."""

    def of(name: str, part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return cargo.load(part) if name in names else part
        return loaded(part, cargo, names)

    return _mapped(kept, of)


def unloaded(kept: Any, arrived: list[torch.Tensor]) -> Any:
    """`kept` with tensors in place of its tickets."""
    if isinstance(kept, Ticket):
        return kept.over(arrived[kept.place])
    return _mapped(kept, lambda _, part: unloaded(part, arrived))


def _mapped(kept: Any, of: Callable[[str, Any], Any]) -> Any:
    """A dataclass with `of` the name and value of each field; anything else as it is."""
    if not is_dataclass(kept) or isinstance(kept, type):
        return kept
    values = {part.name: of(part.name, getattr(kept, part.name)) for part in fields(kept)}
    return replace(kept, **values)


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
