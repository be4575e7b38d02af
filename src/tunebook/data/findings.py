"""What a check can find: the findings, their words, the report.

The words of every finding stand here; which rows have it, `review` finds out.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunebook.data.formats import Detection
from tunebook.data.prepare import DataStatistics
from tunebook.errors import TunebookError

Severity = Literal["error", "warning", "info"]
EXAMPLES = 5
ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


class Finding(BaseModel):
    """One thing about the data: `count` rows have it, `examples` are the first of their numbers.

    `fix` is the name of a safe change that removes it (see `apply_fixes`), or None.
    """

    severity: Severity
    code: str
    title: str
    count: int
    examples: list[int]
    do: str
    fix: str | None = None


class CheckReport(BaseModel):
    """All findings, worst first; `statistics` is None where no model was given to count tokens.

    `not_checked` says what could not be looked for, and what it needs.
    """

    findings: list[Finding]
    detection: Detection | None = None
    statistics: DataStatistics | None = None
    rows: int = 0
    not_checked: list[str] = []

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def fixes(self) -> list[str]:
        """The safe fixes that would remove findings, each once."""
        return list(dict.fromkeys(f.fix for f in self.findings if f.fix))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with `ok`."""
        return {"ok": self.ok, **self.model_dump(mode="json")}

    def __str__(self) -> str:
        lines = [f"{self.rows} rows: " + ("no errors." if self.ok else "errors found.")]
        if self.detection is not None:
            sure = (
                f" ({self.detection.confidence:.0%} sure)" if self.detection.confidence < 1 else ""
            )
            lines.append(f"Format: {self.detection.format}{sure}. {self.detection.reason}")
        if self.statistics is not None:
            s = self.statistics
            share = s.trained_tokens / s.tokens if s.tokens else 0.0
            lines.append(
                f"{s.tokens} tokens, {s.trained_tokens} ({share:.0%}) learnt; "
                f"longest row {s.longest}."
            )
        for f in self.findings:
            rows = ", ".join(map(str, f.examples)) + (", …" if f.count > len(f.examples) else "")
            lines.append(f"[{f.severity}] {f.title}" + (f" (rows {rows})" if f.examples else ""))
            lines.append(f"    Do: {f.do}" + (f" Fix: --fix {f.fix}" if f.fix else ""))
        lines += [f"Not checked: {reason}" for reason in self.not_checked]
        return "\n".join(lines)


def from_error(error: TunebookError) -> Finding:
    """What is wrong with the data as a whole, as a finding."""
    return Finding(
        severity="error",
        code=error.name,
        title=f"{error.what} {error.why}",
        count=0,
        examples=[],
        do=error.do,
    )


# code: severity, title (with {n} rows of {rows}; {why} of the first), what to do, fix
TEXTS: dict[str, tuple[Severity, str, str, str | None]] = {
    "invalid_row": (
        "error",
        "{n} of {rows} rows cannot be turned into a conversation; the first: {why}",
        "mend or delete these rows.",
        "drop_invalid",
    ),
    "bad_image": (
        "error",
        "The pictures of {n} of {rows} rows cannot be used; the first: {why}",
        "mend these rows, or leave them out (`data.on_bad_rows: skip`).",
        "drop_invalid",
    ),
    "image_too_long": (
        "error",
        "In {n} of {rows} rows a picture leaves no room for an answer; the first: {why}",
        "lower `data.max_pixels`, or raise `model.max_seq_length`.",
        None,
    ),
    "mended_image": (
        "info",
        "The pictures of {n} of {rows} rows are mended when they are opened; the first is {why}.",
        "nothing, unless something is lost by it.",
        None,
    ),
    "mixed_formats": (
        "error",
        "{n} of {rows} rows are written in another format than the others: {why}.",
        "put each format into a file of its own, or leave these rows out.",
        "drop_invalid",
    ),
    "template_refuses": (
        "error",
        "The chat template refuses {n} of {rows} rows; the first: {why}",
        "mend these conversations, or set `model.chat_template`.",
        None,
    ),
    "template_mismatch": (
        "warning",
        "The chat template is not the one that the model was trained with: {why}",
        "leave `model.chat_template` empty unless you mean to teach the model another one.",
        None,
    ),
    "double_bos": (
        "error",
        "{n} rows begin with the start token twice.",
        "take the start token out of the data; the template writes it.",
        "strip_special_tokens",
    ),
    "broken_row": (
        "error",
        "{n} rows cannot be read; the first: {why}",
        "mend them, or leave them out (`data.on_bad_rows: skip`).",
        "drop_invalid",
    ),
    "skipped_row": (
        "warning",
        "{n} rows cannot be read and are left out; the first: {why}",
        "mend them; `data.on_bad_rows: stop` names each.",
        None,
    ),
    "masked_row": (
        "warning",
        "{n} of {rows} rows have nothing to learn and are left out.",
        "give them an answer, or raise `model.max_seq_length` if the answer was cut off.",
        None,
    ),
    "barely_trained": (
        "warning",
        "In {n} rows fewer than one token in a hundred is learnt.",
        "look at them: much is read for little; shorten the questions or split the rows.",
        None,
    ),
    "answer_cut": (
        "warning",
        "{n} of {rows} rows are cut inside an answer: the model does not see how it ends.",
        "raise `model.max_seq_length`, or shorten these rows.",
        None,
    ),
    "truncated": (
        "warning",
        "{n} of {rows} rows ({share}) are longer than the limit and are cut.",
        "raise `model.max_seq_length`{why}, or shorten these rows.",
        None,
    ),
    "empty_answer": (
        "warning",
        "{n} rows have an empty answer: the model learns to say nothing.",
        "delete these rows unless silence is wanted.",
        "drop_empty_answers",
    ),
    "empty_question": (
        "warning",
        "{n} rows have an empty question.",
        "look at them: was the right column taken?",
        None,
    ),
    "duplicate": (
        "warning",
        "{n} rows repeat an earlier row word for word.",
        "delete the copies; repeated rows are learnt by heart.",
        "drop_duplicates",
    ),
    "near_duplicate": (
        "info",
        "{n} rows are nearly the same as an earlier one.",
        "look at a few; keep one of each unless the small differences matter.",
        "drop_near_duplicates",
    ),
    "eval_overlap": (
        "warning",
        "{n} conversations are also in {why}, which then measures learning by heart.",
        "delete them from one of the two.",
        "drop_eval_overlap",
    ),
    "eval_near_overlap": (
        "info",
        "{n} conversations are nearly the same as one in {why}.",
        "look at a few: a copy with small changes measures learning by heart too.",
        None,
    ),
    "special_token_text": (
        "warning",
        "{n} rows hold the text of a special token inside a message: {why}.",
        "take it out: the tokenizer reads it as the end of a turn or as another speaker.",
        "strip_special_tokens",
    ),
    "role_order": (
        "warning",
        "{n} rows have roles out of order (two alike in a row, a late system message, or an "
        "answer without a question).",
        "look at these conversations; most models expect user and assistant in turn.",
        None,
    ),
    "missing_end_of_turn": (
        "warning",
        "In {n} rows no end-of-turn token follows the last answer: the model does not learn to "
        "stop.",
        "choose a `model.chat_template` whose end-of-turn token the tokenizer knows.",
        None,
    ),
    "damaged_text": (
        "warning",
        "{n} rows hold damaged text, such as {why}.",
        "read the source with its right encoding; texts that were read wrongly once can be mended.",
        "mend_encoding",
    ),
    "secret": (
        "warning",
        "{n} rows hold what looks like a key or password: {why}.",
        "take it out and revoke it; a model repeats what it learnt.",
        "hide_personal_data",
    ),
    "personal_data": (
        "info",
        "{n} rows hold what looks like personal data: {why}.",
        "take it out unless it is meant to be learnt; a model repeats what it learnt.",
        "hide_personal_data",
    ),
    "tools_unused": (
        "warning",
        "{n} rows come with a list of tools that the model is not shown: {why}.",
        "choose a `model.chat_template` that knows tools; where the column is not taken, add it to "
        "`data.columns` (`tools=NAME`). Else the model learns to call what it was not told of.",
        None,
    ),
    "tools_twice": (
        "info",
        "{n} rows describe their tools in the system message too: the model reads them twice.",
        "take one of the two away, such as by mapping only the messages in `data.columns`.",
        None,
    ),
    "other_language": (
        "info",
        "{n} rows are certainly in another language or script than nearly all others: {why}.",
        "look at them; nothing, if that is meant.",
        None,
    ),
    "missing_bos": (
        "info",
        "{n} rows begin without the start token that the tokenizer puts before plain text.",
        "nothing, if the template is the model's own; else choose one that writes it.",
        None,
    ),
    "unanswered": (
        "info",
        "{n} rows end with a question: their last turn is not learnt.",
        "nothing, if that is meant.",
        None,
    ),
    "long_row": (
        "info",
        "{n} rows are more than four times as long as 95 of 100 rows.",
        "look at them: a few very long rows cost memory for all.",
        None,
    ),
}
