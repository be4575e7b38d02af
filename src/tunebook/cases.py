"""Test cases: conversations kept in a file, asked of every new run and compared with the run before.

Knows files and whatever can `answer`; knows no model, no panel and no training.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunebook.errors import CaseInvalid
from tunebook.latex.scores import exact_match
from tunebook.recipe import write_atomic
from tunebook.sampling import Sampling

Match = Literal["free", "contains", "exact", "latex"]
FILE_NAME = "cases.jsonl"
RESULTS_NAME = "case_results.jsonl"

T = TypeVar("T", bound=BaseModel)


class Case(BaseModel):
    """One conversation that ends with a question, and what a good answer is."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    messages: list[dict[str, str]] = Field(min_length=1)
    match: Match = "free"
    expected: str = ""
    sampling: Sampling = Field(default_factory=Sampling)
    answer: str = ""
    """What the run answered from which the case was saved."""
    run: str = ""

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return self.messages[-1].get("content", "")

    def passes(self, answer: str) -> bool | None:
        """Whether an answer is as expected; None where anything is (`free`).

        Letter case and spaces at the ends do not count; `contains` looks anywhere in the answer;
        `latex` is the same formula, however it is written.
        """
        if self.match == "free":
            return None
        if self.match == "latex":
            return exact_match(answer, self.expected)
        said, expected = _plain(answer), _plain(self.expected)
        return said == expected if self.match == "exact" else expected in said


class CaseResult(BaseModel):
    """What one run answered to one case; `before` is what the run before it had answered."""

    case: str
    run: str
    answer: str
    passed: bool | None = None
    before: str = ""
    before_run: str = ""
    before_passed: bool | None = None
    time: float = Field(default_factory=time.time)

    @property
    def changed(self) -> bool:
        """Whether the answer is another one than before."""
        return bool(self.before_run) and self.answer != self.before


class CaseReport(BaseModel):
    """All cases asked of one run."""

    run: str
    cases: list[Case]
    results: list[CaseResult]

    @property
    def failed(self) -> int:
        """How many answers are not as expected."""
        return sum(result.passed is False for result in self.results)

    @property
    def summary(self) -> str:
        """The outcome on one line."""
        passed = sum(result.passed is True for result in self.results)
        changed = sum(result.changed for result in self.results)
        judged = passed + self.failed
        parts = [f"{passed} of {judged} passed" if judged else "nothing to pass or fail"]
        return ", ".join([*parts, f"{changed} changed"])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Question, answer before, answer now, and verdict of each."""
        questions = {case.id: case.question for case in self.cases}
        return [
            (questions[result.case], result.before, result.answer, verdict(result))
            for result in self.results
        ]

    def __str__(self) -> str:
        lines = [f"{self.run}: {self.summary}"]
        for question, before, now, said in self.rows():
            lines += [
                f"{said.upper():8} {question}",
                f"         before: {before}" if before else "",
            ]
            lines.append(f"         now:    {now}")
        return "\n".join(line for line in lines if line)


class CaseBook:
    """The cases of a folder of runs, one JSON line each, in `cases.jsonl`.

    Example:
        >>> book = run.cases  # doctest: +SKIP
        >>> book.add("What is the capital of Italy?", expected="Rome")  # doctest: +SKIP
        >>> print(run.check_cases())  # doctest: +SKIP
    """

    def __init__(self, root: Path | str) -> None:
        self.path = Path(root) / FILE_NAME

    def read(self) -> list[Case]:
        """All cases, oldest first.

        Raises:
            CaseInvalid: a line of the file is no case.
        """
        return [_parsed(Case, line, self.path, at) for at, line in _lines(self.path)]

    def add(
        self,
        messages: str | Sequence[dict[str, str]],
        *,
        expected: str = "",
        match: Match | None = None,
        sampling: Sampling | None = None,
        answer: str = "",
        run: str = "",
    ) -> Case:
        """Save one more case.

        Args:
            messages: a conversation that ends with the user's words, or those words alone.
            expected: what the answer must contain or be.
            match: "contains", "exact", "latex" or "free"; None is "contains" if something is expected.
            sampling: how the answer is drawn; give a seed with a temperature above 0.
            answer: what was answered when the case was saved, and by which `run`.

        Raises:
            CaseInvalid: nothing is asked, or nothing is expected where something must be.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        match = match or ("contains" if expected else "free")
        if not messages or messages[-1].get("role") != "user" or not messages[-1].get("content"):
            raise CaseInvalid(
                "This cannot be a test case.",
                "it does not end with something that the user asks.",
                "ask the model something first, then save the conversation.",
            )
        if match != "free" and not expected.strip():
            raise CaseInvalid(
                "The test case expects nothing.",
                f"`{match}` compares the answer with a text, and that text is empty.",
                "write what the answer must say, or choose `free`.",
            )
        case = Case(
            messages=[dict(message) for message in messages],
            match=match,
            expected=expected.strip(),
            sampling=sampling or Sampling(),
            answer=answer,
            run=run,
        )
        _append(self.path, [case])
        return case

    def remove(self, id: str) -> None:
        """Take a case out; nothing happens if it is not there."""
        kept = [case for case in self.read() if case.id != id]
        write_atomic(self.path, "".join(case.model_dump_json() + "\n" for case in kept))


class Answers(Protocol):
    """What cases are asked of: a `Run`, or anything like it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def path(self) -> Path:
        """Its folder, among those of the other runs."""

    def answer(self, messages: Any, **sampling: Any) -> str:
        """The whole answer."""


def check_cases(
    run: Answers,
    cases: Sequence[Case] | None = None,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CaseReport:
    """Ask a run every case, and keep what it said in the run's `case_results.jsonl`.

    Args:
        cases: None takes all of the runs' folder.
        stop: set it to end after the answer being written, which is left out.
        progress: told how many of how many are done.
    """
    asked = list(CaseBook(run.path.parent).read() if cases is None else cases)
    earlier = _latest_of_others(run.path)
    results: list[CaseResult] = []
    progress(0, len(asked))
    for case in asked:
        answer = run.answer(case.messages, stop=stop, **case.sampling.arguments())
        if stop is not None and stop.is_set():
            break
        results.append(_result(run.name, case, answer, earlier.get(case.id)))
        progress(len(results), len(asked))
    _append(run.path / RESULTS_NAME, results)
    kept = {result.case for result in results}
    return CaseReport(
        run=run.name, cases=[case for case in asked if case.id in kept], results=results
    )


def verdict(result: CaseResult) -> str:
    """`passed`, `failed`, `changed` or `same`; `new` where there is nothing to compare with."""
    if result.passed is not None:
        return "passed" if result.passed else "failed"
    if not result.before_run:
        return "new"
    return "changed" if result.changed else "same"


def _result(run: str, case: Case, answer: str, last: CaseResult | None) -> CaseResult:
    before, by = (last.answer, last.run) if last else (case.answer, case.run)
    return CaseResult(
        case=case.id,
        run=run,
        answer=answer,
        passed=case.passes(answer),
        before=before,
        before_run=by,
        before_passed=case.passes(before) if by else None,
    )


def last_results(path: Path) -> dict[str, CaseResult]:
    """The newest result of each case in a run's folder, by the case's id."""
    file = path / RESULTS_NAME
    results = [_parsed(CaseResult, line, file, at) for at, line in _lines(file)]
    return {result.case: result for result in results}


def _latest_of_others(path: Path) -> dict[str, CaseResult]:
    """The newest result of each case in the other runs of the same folder."""
    latest: dict[str, CaseResult] = {}
    for file in path.parent.glob(f"*/{RESULTS_NAME}"):
        for case, result in last_results(file.parent).items() if file.parent != path else ():
            if case not in latest or latest[case].time < result.time:
                latest[case] = result
    return latest


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if path.is_file():
        for at, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line.strip():
                yield at, line


def _parsed(kind: type[T], line: str, path: Path, at: int) -> T:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CaseInvalid(
            f"The test cases in {path} cannot be read.",
            f"line {at}: {f'`{place}`: ' if place else ''}{first['msg']}.",
            "mend that line, or delete it.",
        ) from None


def _append(path: Path, models: Sequence[BaseModel]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(model.model_dump_json() + "\n" for model in models)
    if not text:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
