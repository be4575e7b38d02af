"""What can be done with a run once it has trained: talk to it, write it, prove it, publish it.

A part of `Run`; starts no thread and trains nothing.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.cases import Case, CaseBook, CaseReport, check_cases
from tunebook.errors import RecipeInvalid
from tunebook.events import EvaluationEvent, EventLog, ExportEvent, StepEvent
from tunebook.recipe import Recipe
from tunebook.training.folder import RunFolder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from tunebook.engine import Token
    from tunebook.export import Verification
    from tunebook.export.card import Curve
    from tunebook.export.progress import Pass

Messages = list[dict[str, str]]


class Results(ABC):
    """The methods of a `Run` that need a model which has been trained."""

    folder: RunFolder
    recipe: Recipe

    @property
    @abstractmethod
    def model(self) -> PeftModel:
        """The tuned model."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""

    @abstractmethod
    def history(self) -> list[StepEvent]:
        """Each step once, in order."""

    @abstractmethod
    def _require_ended(self, verb: str) -> None:
        """Raise `RunBusy` while it trains."""

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.name

    @property
    def log(self) -> EventLog:
        """The run's events."""
        return self.folder.log

    def stream(
        self, messages: Messages | str, *, adapter: bool = True, **sampling: Any
    ) -> Iterator[str]:
        """The model's answer, in pieces as it is written.

        Args:
            messages: a conversation, or one question.
            adapter: False asks the base model instead.
            sampling: the knobs of `tunebook.sampling.Sampling`, and `stop`; see `engine.stream_chat`.
        """
        from tunebook.engine import stream_chat

        return stream_chat(self.model, self.tokenizer, messages, adapter=adapter, **sampling)

    def stream_tokens(
        self, messages: Messages | str, *, adapter: bool = True, **sampling: Any
    ) -> Iterator[Token]:
        """Like `stream`, token by token, each with its probability and the likeliest alternatives."""
        from tunebook.engine import stream_tokens

        return stream_tokens(self.model, self.tokenizer, messages, adapter=adapter, **sampling)

    def answer(self, messages: Messages | str, *, adapter: bool = True, **sampling: Any) -> str:
        """The model's whole answer; see `stream`."""
        return "".join(self.stream(messages, adapter=adapter, **sampling))

    @property
    def cases(self) -> CaseBook:
        """The test cases of the folder of runs that this one is in; `check_cases` asks them."""
        return CaseBook(self.path.parent)

    def check_cases(self, cases: Sequence[Case] | None = None, **more: Any) -> CaseReport:
        """Ask this run every test case and compare with what the run before it answered.

        Args:
            cases: None takes all of `self.cases`.
            more: `stop` and `progress` of `tunebook.cases.check_cases`.
        """
        return check_cases(self, cases, **more)

    def export(
        self,
        formats: Sequence[str] | None = None,
        *,
        folder: Path | str | None = None,
        quantization: Sequence[str] | None = None,
        bits: float | None = None,
        size: int | str | None = None,
        importance: str | None = None,
        replace: bool = False,
        progress: Callable[[str, int, int], Any] | None = None,
        measuring: Callable[[Pass], Any] | None = None,
        stop: threading.Event | None = None,
    ) -> list[Path]:
        """Write the tuned model for use elsewhere. Returns the folders written.

        Each is an `ExportEvent` too, with notes on what other programs do otherwise than the model.

        Args:
            formats: names of `tunebook.export.FORMATS`; None takes the recipe's.
            folder: where; None is the run's own `export/`. Each format gets a folder of its name.
            quantization: of GGUF files, such as ["q4_k_m", "q8_0"] or ["dynamic"]; None takes the
                recipe's.
            bits, size, importance: of GGUF files, see `tunebook.export.save_gguf`.
            replace: whether a model that is in `folder` already gives way.
            progress: called with the format, the bytes done and the bytes in all.
            measuring: called with each `tunebook.export.progress.Pass` of what "dynamic" and
                importance="auto" measure before anything is written; `MeasuringEvent`s say it too.
            stop: set it from anywhere to stop; what is half-written then is taken away.

        Raises:
            RecipeInvalid: unknown format.
            RunBusy: training has not ended.
            FolderExists, DiskFull, Cancelled: see `tunebook.export`.
        """
        from tunebook.export import FORMATS, Progress
        from tunebook.export.gguf.mixes import mix_title
        from tunebook.training.worker import folder_bytes, measuring_events

        self._require_ended("exported")
        target = Path(folder) if folder is not None else self.folder.exports
        wanted = list(formats if formats is not None else self.recipe.export.formats)
        if unknown := [name for name in wanted if name not in FORMATS]:
            raise RecipeInvalid(
                f"There is no export format {unknown[0]!r}.",
                f"known are {', '.join(FORMATS)}.",
                "set `export.formats` to some of these.",
            )
        recipe = self.recipe
        if quantization is not None:
            mixes = [mix_title(name).lower() for name in quantization]
            recipe = recipe.with_values({"export.gguf_quantization": mixes})
        written = []
        for name in wanted:
            inside = folder is None
            tell = partial(progress, name) if progress is not None else None
            step = max((event.step for event in self.history()), default=0)
            counted = Progress(tell, stop, measuring=measuring_events(self.log, step, measuring))
            gguf = {"bits": bits, "size": size, "importance": importance} if name == "gguf" else {}
            path = FORMATS[name].save(
                self.model,
                self.tokenizer,
                target / name,
                recipe=recipe,
                replace=inside or replace,
                progress=counted,
                **gguf,
            )
            shown = os.path.relpath(path, self.path) if inside else str(path.absolute())
            held, notes = folder_bytes(path), tuple(counted.notes)
            event = ExportEvent(step=step, format=name, path=shown, bytes=held, notes=notes)
            self.log.append(event)
            written.append(path)
        return written

    def verify(self, path: Path | str) -> Verification:
        """Load what `export` wrote and compare it with this run's model; see `tunebook.export.verify`."""
        from tunebook.export import verify

        self._require_ended("compared")
        return verify(path, self.model, self.tokenizer, self.recipe)

    def upload(
        self,
        repo: str,
        *,
        folder: Path | str | None = None,
        token: str | None = None,
        private: bool = True,
        replace: bool = False,
        progress: Callable[[int, int], Any] | None = None,
        stop: threading.Event | None = None,
    ) -> str:
        """Put the tuned model on the Hugging Face hub; returns the page's address.

        Args:
            repo: "owner/name", or a name alone for the token's own account.
            folder: what `export` wrote; None takes the adapter, writing it first if need be.
            token: None takes the machine's login; kept nowhere.
            private: whether only its owner sees it.
            replace: whether another model that is in the repository gives way.
            progress: called with the bytes done and the bytes in all.
            stop: set it from anywhere to stop between two files.

        Raises:
            HubRefused, HubUnreachable, Cancelled: see `tunebook.export.upload`.
        """
        from tunebook.export import Progress, upload

        self._require_ended("uploaded")
        if folder is None:
            folder = self.folder.exports / "adapter"
            if not (folder / "adapter_config.json").is_file():
                (folder,) = self.export(["adapter"])
        return upload(
            folder,
            repo,
            token=token,
            private=private,
            recipe=self.recipe,
            numbers=self._numbers(),
            curve=self._curve(),
            replace=replace,
            progress=Progress(progress, stop, what="The upload"),
        )

    def _curve(self) -> Curve:
        """The losses, for its card."""
        from tunebook.export.card import Curve

        return Curve(
            [(event.step, event.loss) for event in self.history()],
            [(event.step or 0, event.loss) for event in self.log.of(EvaluationEvent)],
        )

    def _numbers(self) -> dict[str, str]:
        """What the run measured, for its card."""
        steps = self.history()
        if not steps:
            return {}
        numbers = {
            "steps": str(steps[-1].step),
            "loss": f"{steps[0].loss:.4f} → {steps[-1].loss:.4f}",
        }
        if evaluations := self.log.of(EvaluationEvent):
            numbers["evaluation loss"] = f"{evaluations[-1].loss:.4f}"
        return numbers
