"""What happened in a run, one typed line each: the Event types and the append-only EventLog.

Whoever watches a run (a panel, the command line, another process) reads the log and nothing else.
This module knows neither torch nor the trainer.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

SCHEMA_VERSION = 1
_BUSY_ENOUGH = 0.8  # of a step; what is left is no longer worth a change


class EventBase(BaseModel):
    """What every event carries."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="strings")

    time: float = Field(default_factory=time.time, description="Seconds since the epoch, UTC.")
    step: int = Field(default=0, description="Optimizer steps done when it happened.")


class StartedEvent(EventBase):
    """Training began, or began again from a checkpoint."""

    kind: Literal["started"] = "started"
    schema_version: int = SCHEMA_VERSION
    pid: int = Field(
        description="Process that trains; with `process_started` it names it for good."
    )
    process_started: float = Field(description="Start of that process, seconds since the epoch.")
    host: str
    device: str = Field(description='Such as "cpu" or "cuda:0 NVIDIA H200".')
    total_steps: int
    resumed_from: int | None = Field(default=None, description="Step of the checkpoint, if any.")
    trainable_parameters: int
    total_parameters: int
    versions: dict[str, str] = Field(default_factory=dict)


class StepEvent(EventBase):
    """One optimizer step."""

    kind: Literal["step"] = "step"
    epoch: float
    loss: float = Field(description="Mean cross-entropy per trained token of this step, in nats.")
    learning_rate: float
    grad_norm: float | None = None
    tokens: int = Field(description="Non-padding tokens seen since the run began.")
    trained_tokens: int = Field(
        default=0, description="Tokens that carried a label, since the run began."
    )
    seconds: float = Field(description="Wall time of this step.")


class EvaluationEvent(EventBase):
    """Loss on the evaluation rows."""

    kind: Literal["evaluation"] = "evaluation"
    loss: float
    metrics: dict[str, float] = Field(default_factory=dict)


class MemoryEvent(EventBase):
    """Memory as the allocator and the system saw it, in bytes."""

    kind: Literal["memory"] = "memory"
    device: str
    allocated: int = Field(description="Bytes in tensors now.")
    peak: int = Field(description="Highest number of bytes in tensors so far.")
    reserved: int | None = Field(
        default=None, description="Bytes held by the caching allocator (CUDA)."
    )
    process: int = Field(default=0, description="Resident memory of the process (host).")
    method: str = Field(default="allocator", description="How `peak` was measured.")


class BusyEvent(EventBase):
    """How busy the GPU was in one step, measured once after each beginning; never on a CPU."""

    kind: Literal["busy"] = "busy"
    busy: float = Field(
        ge=0, le=1, description="Share of the step's wall time in which a kernel or a copy ran."
    )
    kernels: int = Field(description="Kernels and copies of this step.")
    seconds: float = Field(
        description="Wall time of this step, with the device waited for at both ends."
    )

    def words(self) -> str:
        """Such as "96 %, 1,414 kernels a step"."""
        return f"{100 * self.busy:.0f} %, {self.kernels:,} kernels a step"

    def advice(self) -> str:
        """What to do about a low share; empty where there is little to gain."""
        if self.busy >= _BUSY_ENOUGH:
            return ""
        return (
            "give each step more to do, by a larger `training.batch_size` with less accumulation, "
            "or by `training.packing`."
        )


class SampleEvent(EventBase):
    """An answer of the model at this step; `expected` is what the row says, if it is one.

    `images` are the pictures that the question shows, as paths within the run folder.
    """

    kind: Literal["sample"] = "sample"
    prompt: str
    answer: str
    expected: str | None = None
    images: tuple[str, ...] = ()


class PausedEvent(EventBase):
    """Training rests between two steps, with everything kept in memory."""

    kind: Literal["paused"] = "paused"


class ContinuedEvent(EventBase):
    """Training goes on, or is about to stop, after a pause."""

    kind: Literal["continued"] = "continued"
    seconds: float = Field(description="How long it rested.")


class CheckpointEvent(EventBase):
    """A checkpoint was written; `path` is relative to the run folder."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: str


class WarningEvent(EventBase):
    """Something the user should know, with what to do about it."""

    kind: Literal["warning"] = "warning"
    code: str
    message: str
    do: str = ""


class MeasuringEvent(EventBase):
    """Before a quantization is chosen for a model it is measured: a pass begins or goes on."""

    kind: Literal["measuring"] = "measuring"
    title: str
    number: int
    of: int
    done: int
    total: int
    seconds_left: float | None = Field(default=None, description="Until the end of the pass.")


class ExportEvent(EventBase):
    """Files were written for use elsewhere; `path` is relative to the run folder where it lies inside.

    `notes` are sentences on what other programs do with them otherwise than the model.
    """

    kind: Literal["export"] = "export"
    format: str
    path: str
    bytes: int
    notes: tuple[str, ...] = ()


class FinishedEvent(EventBase):
    """Training ended in good order."""

    kind: Literal["finished"] = "finished"
    reason: Literal["completed", "stopped"]
    first_loss: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0
    peak: int | None = Field(default=None, description="Highest number of bytes in tensors.")


class FailedEvent(EventBase):
    """Training ended by an error, in its three parts."""

    kind: Literal["failed"] = "failed"
    error: dict[str, str]


Event = Annotated[
    StartedEvent
    | StepEvent
    | EvaluationEvent
    | MemoryEvent
    | BusyEvent
    | SampleEvent
    | PausedEvent
    | ContinuedEvent
    | CheckpointEvent
    | WarningEvent
    | MeasuringEvent
    | ExportEvent
    | FinishedEvent
    | FailedEvent,
    Field(discriminator="kind"),
]
EVENT_TYPES: tuple[type[EventBase], ...] = (
    StartedEvent,
    StepEvent,
    EvaluationEvent,
    MemoryEvent,
    BusyEvent,
    SampleEvent,
    PausedEvent,
    ContinuedEvent,
    CheckpointEvent,
    WarningEvent,
    MeasuringEvent,
    ExportEvent,
    FinishedEvent,
    FailedEvent,
)
_BY_KIND: dict[str, type[EventBase]] = {
    cls.model_fields["kind"].default: cls for cls in EVENT_TYPES
}
_adapter: TypeAdapter[Any] = TypeAdapter(Event)
_DURABLE = (StartedEvent, CheckpointEvent, FinishedEvent, FailedEvent, ExportEvent)

T = TypeVar("T", bound=EventBase)


def parse_event(line: str | bytes) -> EventBase:
    """The typed event of one line of a log.

    Raises:
        pydantic.ValidationError: the line is no event of this schema.
    """
    event: EventBase = _adapter.validate_json(line)
    return event


def typed_event(record: dict[str, Any]) -> EventBase | None:
    """The typed event of a record from `EventLog.records`; None if it is of a later schema."""
    cls = _BY_KIND.get(record.get("kind", ""))
    try:
        return None if cls is None else cls.model_validate(record)
    except ValidationError:
        return None


class EventLog:
    """The events of one run in `events.jsonl`, appended by one process and read by any number.

    Reading never fails on a line that is cut off (a crash in mid-write) or of a later schema: such
    lines are passed over, and their number is in `skipped`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.skipped = 0
        self._lock = threading.Lock()

    def append(self, event: EventBase) -> None:
        """Write one event at the end; what ends or saves a run is flushed to the disk at once."""
        line = event.model_dump_json().encode() + b"\n"
        with self._lock, self.path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")  # the line before was cut off by a crash: end it
            file.write(line)
            file.flush()
            if isinstance(event, _DURABLE):
                os.fsync(file.fileno())

    def read(self) -> list[EventBase]:
        """All events so far, in order; an empty list if there is no file yet."""
        self.skipped = 0
        events, _ = self._read_from(0)
        return events

    def of(self, *kinds: type[T]) -> list[T]:
        """All events of some types, in order; other lines are not even parsed."""
        self.skipped = 0
        return self.since(0, *kinds)[0]

    def since(self, offset: int, *kinds: type[T]) -> tuple[list[T], int]:
        """Events of some types in the lines from a byte offset on, and the offset behind them."""
        words = "|".join(re.escape(kind.model_fields["kind"].default) for kind in kinds)
        wanted = re.compile(rf'"kind"\s*:\s*"(?:{words})"'.encode())
        lines, end = self._lines(offset)
        found = (self._parsed(line) for line in lines if wanted.search(line))
        return [event for event in found if isinstance(event, kinds)], end

    def records(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The lines from a byte offset on as plain dicts, unchecked, and the offset behind them.

        Three times as fast as `read`, for who folds very many of them; numbers that are none are
        the texts "NaN", "Infinity" and "-Infinity". `typed_event` makes an event of one.
        """
        lines, end = self._lines(offset)
        records = []
        for line in lines:
            try:
                record = from_json(line)
            except ValueError:
                self.skipped += 1
                continue
            if isinstance(record, dict):
                records.append(record)
        return records, end

    def follow(
        self,
        *,
        poll: float = 0.2,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[EventBase]:
        """Yield the events so far and then each new one, until `until()` is true at the end.

        Args:
            poll: seconds between two looks at the file.
            until: asked whenever there is nothing new; None follows for ever.
        """
        offset = 0
        while True:
            done = until is not None and until()
            events, offset = self._read_from(offset)
            yield from events
            if done:
                return
            if not events:
                time.sleep(poll)

    def _read_from(self, offset: int) -> tuple[list[EventBase], int]:
        lines, end = self._lines(offset)
        events = [event for line in lines if (event := self._parsed(line)) is not None]
        return events, end

    def _parsed(self, line: bytes) -> EventBase | None:
        try:
            return parse_event(line)
        except ValidationError:
            self.skipped += 1
            return None

    def _lines(self, offset: int) -> tuple[list[bytes], int]:
        """The whole lines from `offset` on, without blank ones, and the offset behind them."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], offset
        complete = data.rfind(b"\n") + 1
        return [line for line in data[:complete].split(b"\n") if line.strip()], offset + complete


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    byte: bytes = file.read(1)
    return byte
