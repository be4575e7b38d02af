"""The test cases of the try panel: save a conversation as one, ask them all, show before and now.

A thin face over `tunebook.cases`; knows no model.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.cases import Case, CaseBook, CaseReport, CaseResult, last_results, verdict
from tunebook.errors import CaseInvalid, TunebookError
from tunebook.sampling import Sampling
from tunebook.widgets import _static


class CaseTraits(t.HasTraits):
    """What the try panel knows of test cases."""

    cases: t.List[Any] = t.List(
        help="id, question, match, expected, before, before_run, now, verdict."
    ).tag(sync=True)
    cases_summary = t.Unicode(help="How the run answered them, on one line.").tag(sync=True)
    checking = t.Dict(help="done and total while the cases are asked; or empty.").tag(sync=True)

    _stop: threading.Event

    @property
    def book(self) -> CaseBook:
        """The file of cases of the run's folder of runs, or of the guide's."""
        studio: Any = self.studio  # type: ignore[attr-defined]
        return CaseBook(studio.root if studio.run is None else Path(studio.run.path).parent)

    def save_case(self, *, match: str = "free", expected: str = "") -> Case:
        """Save the conversation so far as a test case.

        Args:
            match: "contains", "exact", "latex" or "free".
            expected: what the answer must contain or be.

        Raises:
            CaseInvalid: nothing was asked, or nothing is expected where something must be.
        """
        panel: Any = self
        if not panel.turns:
            raise CaseInvalid(
                "There is no conversation to save.",
                "nothing was asked yet.",
                "ask something first.",
            )
        *earlier, last = panel.turns
        case = self.book.add(
            panel.messages("tuned", earlier, last["user"]),
            match=match,  # type: ignore[arg-type]  # checked there
            expected=expected,
            sampling=_reproducible(panel.sampling, last["seed"]),
            answer=last["tuned"]["text"],
            run=panel.studio.run.name if panel.studio.run is not None else "",
        )
        self.show_cases()
        return case

    def check_cases(self) -> CaseReport:
        """Ask the run all cases, wait, and show what it answered.

        Raises:
            RunMissing, RunBusy: see `TryPanel.ask`.
        """
        panel: Any = self
        run = panel.require_free()
        self._stop.clear()
        panel.show(answering=True, checking={"done": 0, "total": len(self.cases)})
        try:
            report: CaseReport = run.check_cases(
                self.book.read(),
                stop=self._stop,
                progress=lambda done, total: panel.show(checking={"done": done, "total": total}),
            )
        finally:
            panel.show(answering=False, checking={})
        self.show_cases(report)
        return report

    def do_save_case(self, match: str = "free", expected: str = "") -> None:
        """The Save button of a case."""
        self.save_case(match=match, expected=expected)

    def do_remove_case(self, id: str) -> None:
        """Take a case out of the file."""
        self.book.remove(id)
        self.show_cases()

    def do_check_cases(self) -> None:
        """The button that asks all cases."""
        panel: Any = self
        panel.require_free()
        panel.work(self.check_cases, during="ask the test cases", busy="")

    def show_cases(self, report: CaseReport | None = None) -> None:
        """Read the file anew; results that were shown stay unless a report brings new ones."""
        panel: Any = self
        try:
            cases = self.book.read()
        except TunebookError as error:
            panel.show_error(error, during="read the test cases")
            return
        run = panel.studio.run
        if report is None and run is not None:
            report = _last_report(run, cases)
        results = {result.case: result for result in report.results} if report else {}
        shown = [_row(case, results.get(case.id)) for case in cases]
        panel.show(cases=shown, cases_summary=report.summary if report and results else "")

    def case_lines(self) -> list[str]:
        """The cases in plain text."""
        if not self.cases:
            return []
        head = f"Test cases: {self.cases_summary or len(self.cases)}"
        return [head, *(f"  {c['verdict']}: {c['question']} → {c['now']}" for c in self.cases)]

    def case_html(self) -> str:
        """The cases as a table."""
        if not self.cases:
            return ""
        rows = [(c["question"], c["before"], c["now"], c["verdict"]) for c in self.cases]
        head = f"Test cases: {self.cases_summary}" if self.cases_summary else "Test cases"
        columns = ["Question", "Before", "Now", ""]
        return _static.subheading(head) + _static.table(rows, columns, headed=True)


def _last_report(run: Any, cases: list[Case]) -> CaseReport | None:
    """What the run answered the last time it was asked, from its folder."""
    results = last_results(Path(run.path))
    kept = [results[case.id] for case in cases if case.id in results]
    return CaseReport(run=run.name, cases=cases, results=kept) if kept else None


def _row(case: Case, result: CaseResult | None) -> dict[str, Any]:
    return {
        "id": case.id,
        "question": case.question,
        "match": case.match,
        "expected": case.expected,
        "before": result.before if result else case.answer,
        "before_run": result.before_run if result else case.run,
        "now": result.answer if result else "",
        "verdict": verdict(result) if result else "not asked",
    }


def _reproducible(sampling: Sampling, seed: int) -> Sampling:
    """The same sampling with the seed that was drawn, where chance has a part."""
    return sampling.model_copy(update={"seed": seed}) if sampling.temperature > 0 else sampling
