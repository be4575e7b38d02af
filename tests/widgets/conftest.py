"""Small stand-ins for what the panels show, with the real names; no test here starts a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunebook.cases import check_cases
from tunebook.events import (
    BusyEvent,
    EventLog,
    ExportEvent,
    FinishedEvent,
    MemoryEvent,
    StartedEvent,
    StepEvent,
)
from tunebook.recipe import Recipe


class FakeRun:
    """A run that writes its events by hand, so that a test decides what happens and when."""

    def __init__(self, path: Path, recipe: Recipe | None = None):
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.name = path, path.name
        self.recipe = recipe or Recipe()
        self.log = EventLog(path / "events.jsonl")
        self.state = "new"
        self.phase = ""
        self.plan: Any = None
        self.error: Any = None
        self.asked: list[Any] = []
        self.uploads: list[Any] = []
        self.stopped = threading.Event()
        self.requests: set[str] = set()

    @property
    def alive(self) -> bool:
        return self.state in ("running", "paused", "stopping")

    def begin(self, total: int = 10, resumed_from: int | None = None) -> None:
        self.state = "running"
        self.log.append(
            StartedEvent(
                pid=1,
                process_started=1.0,
                host="here",
                device="cpu",
                total_steps=total,
                resumed_from=resumed_from,
                trainable_parameters=1,
                total_parameters=2,
            )
        )

    def step(self, number: int, loss: float) -> None:
        step = StepEvent(
            step=number, epoch=0.1, loss=loss, learning_rate=1e-4, tokens=100 * number, seconds=0.5
        )
        self.log.append(step)
        self.log.append(MemoryEvent(step=number, device="cpu", allocated=1000, peak=2000))

    def measure(self, step: int, busy: float, kernels: int) -> None:
        self.log.append(BusyEvent(step=step, busy=busy, kernels=kernels, seconds=0.5))

    def finish(self, step: int) -> None:
        self.log.append(FinishedEvent(step=step, reason="completed"))
        self.state = "completed"

    def pause(self) -> None:
        self.requests.add("pause")

    def unpause(self) -> None:
        self.requests.discard("pause")

    def save_now(self) -> None:
        self.requests.add("save")

    def sample_now(self) -> None:
        self.requests.add("sample")

    def stop(self) -> None:
        self.state = "stopping"
        self.stopped.set()

    def stream_tokens(self, messages: list[dict[str, str]], **sampling: Any) -> Iterator[Any]:
        self.asked.append((messages, sampling))
        for text in chain(self.says("tuned " if sampling["adapter"] else "base "), [""]):
            if sampling["stop"].is_set():
                return
            piece = text or "<|end|>"
            others = ((piece, 0.75), ("other", 0.123456))
            yield SimpleNamespace(
                text=text, piece=piece, probability=0.75, chance=1.0, alternatives=others
            )

    def says(self, side: str) -> Iterable[str]:
        return (side, "answer")

    def answer(self, messages: Any, **sampling: Any) -> str:
        self.asked.append((messages, sampling))
        return "".join(self.says("tuned "))

    def check_cases(self, cases: Any = None, **more: Any) -> Any:
        return check_cases(self, cases, **more)

    def export(
        self, formats: list[str], *, folder: Path | None, quantization: list[str], **_: Any
    ) -> list[Path]:
        target = folder or self.path / "export"
        for name in formats:
            (target / name).mkdir(parents=True, exist_ok=True)
            (target / name / "adapter_config.json").write_text("{}")
            if name == "gguf":
                for mix in quantization:
                    (target / name / f"fake-{mix.upper()}.gguf").write_text("GGUF")
                notes = ("Ollama says it otherwise.",)
                self.log.append(ExportEvent(format=name, path=name, bytes=4, notes=notes))
        return [target / name for name in formats]

    def verify(self, path: str) -> Any:
        return SimpleNamespace(
            ok=True, summary="Loaded again: the same", compared=("logits",), quantized=False
        )

    def upload(self, repo: str, *, token: str | None, private: bool, **_: Any) -> str:
        self.uploads.append((repo, token, private))
        return f"https://hub/{repo}"


@pytest.fixture
def fake_run(tmp_path: Path) -> FakeRun:
    """A run that has not begun."""
    return FakeRun(tmp_path / "runs" / "fake")


@pytest.fixture
def eventually() -> Any:
    """Wait until something is true, at most twenty seconds: `eventually(lambda: ...)`."""

    def wait(condition: Any, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.02)

    return wait


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests need no JavaScript, an empty module stands for each, and no login of a hub."""
    monkeypatch.setattr("tunebook.widgets.takeaway.saved_token", lambda: False)
    from tunebook.widgets import _panel

    monkeypatch.setattr(_panel, "asset", lambda name: f"/* {name} */")
