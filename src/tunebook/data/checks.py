"""What is wrong with this data: findings that a person can act on, before any training.

The rows take the very path of training; nothing here changes a row.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from tunebook.data.conversations import Message, to_messages
from tunebook.data.formats import Detection, detect_for
from tunebook.data.loading import load_rows
from tunebook.data.masking import MASKED, Encoded, Encoder
from tunebook.data.prepare import DataStatistics, RowCollector, recipe_encoder
from tunebook.data.templates import with_recipe_template
from tunebook.data.tokens import special_ids
from tunebook.errors import RowInvalid, SourceMissing, TemplateInvalid, TunebookError
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Severity = Literal["error", "warning", "info"]
EXAMPLES = 5


class Finding(BaseModel):
    """One thing about the data: `count` rows have it, `examples` are the first of their numbers."""

    severity: Severity
    code: str
    title: str
    count: int
    examples: list[int]
    do: str


class CheckReport(BaseModel):
    """All findings, worst first; `statistics` is None where no model was given to count tokens."""

    findings: list[Finding]
    detection: Detection | None = None
    statistics: DataStatistics | None = None
    rows: int = 0

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with `ok`."""
        return {"ok": self.ok, **self.model_dump(mode="json")}

    def __str__(self) -> str:
        lines = [f"{self.rows} rows: " + ("no errors." if self.ok else "errors found.")]
        if self.detection is not None:
            lines.append(f"Format: {self.detection.format}. {self.detection.reason}")
        if self.statistics is not None:
            s = self.statistics
            lines.append(f"{s.tokens} tokens, {s.trained_tokens} learnt; longest row {s.longest}.")
        for f in self.findings:
            rows = ", ".join(map(str, f.examples)) + (", …" if f.count > len(f.examples) else "")
            lines.append(f"[{f.severity}] {f.title}" + (f" (rows {rows})" if f.examples else ""))
            lines.append(f"    Do: {f.do}")
        return "\n".join(lines)


def check(
    recipe_or_source: Any,
    *,
    model: str | None = None,
    rows: Any = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> CheckReport:
    """Look at every row as training would, and say what is wrong.

    Args:
        recipe_or_source: a Recipe, a path or dataset id, or rows in memory.
        model: whose tokenizer is used where no recipe says so; without one, tokens are not checked.
        rows: in-memory data instead of the recipe's source.
        tokenizer: used as it is instead of loading the model's.

    Raises:
        SourceMissing: there is nothing to check.
        ModelMissing, TokenizerMissing: the model named has no tokenizer to check with. What is
        wrong with the data itself is a finding, never raised.
    """
    recipe, rows = _recipe(recipe_or_source, model, rows)
    wanted = isinstance(recipe_or_source, Recipe) or model is not None
    if tokenizer is None and wanted:
        from tunebook.models.loading import load_tokenizer

        tokenizer = load_tokenizer(recipe.model)
    try:
        table = load_rows(recipe.data, rows=rows)
        detection = detect_for(recipe.data, table)
    except SourceMissing:
        raise
    except TunebookError as error:
        return CheckReport(findings=[_from_error(error)])
    review = _Review(detection)
    try:
        if tokenizer is not None:
            tokenizer = with_recipe_template(tokenizer, recipe)
            review.encoder = recipe_encoder(recipe, tokenizer)
    except TunebookError as error:
        return CheckReport(findings=[_from_error(error)], detection=detection, rows=len(table))
    for number, row in enumerate(table):
        review.look(number, row)
    return review.report(len(table))


def _recipe(source: Any, model: str | None, rows: Any) -> tuple[Recipe, Any]:
    if isinstance(source, Recipe):
        return source, rows
    if isinstance(source, str | Path):
        return Recipe.of(model=model, data=str(source)), rows
    return Recipe.of(model=model), source


def _from_error(error: TunebookError) -> Finding:
    return Finding(
        severity="error",
        code=error.name,
        title=f"{error.what} {error.why}",
        count=0,
        examples=[],
        do=error.do,
    )


_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
# code: severity, title (with {n} rows of {rows}), what to do
_TEXTS: dict[str, tuple[Severity, str, str]] = {
    "invalid_row": (
        "error",
        "{n} of {rows} rows cannot be turned into a conversation; the first: {why}",
        "mend or delete these rows.",
    ),
    "template_refuses": (
        "error",
        "The chat template refuses {n} of {rows} rows; the first: {why}",
        "mend these conversations, or set `model.chat_template`.",
    ),
    "double_bos": (
        "error",
        "{n} rows begin with the start token twice.",
        "take the start token out of the data; the template writes it.",
    ),
    "masked_row": (
        "warning",
        "{n} of {rows} rows have nothing to learn and are left out.",
        "give them an answer, or raise `model.max_seq_length` if the answer was cut off.",
    ),
    "answer_cut": (
        "warning",
        "{n} of {rows} rows are cut inside an answer: the model does not see how it ends.",
        "raise `model.max_seq_length`, or shorten these rows.",
    ),
    "truncated": (
        "warning",
        "{n} of {rows} rows ({share}) are longer than the limit and are cut.",
        "raise `model.max_seq_length`, or shorten these rows.",
    ),
    "empty_answer": (
        "warning",
        "{n} rows have an empty answer: the model learns to say nothing.",
        "delete these rows unless silence is wanted.",
    ),
    "duplicate": (
        "warning",
        "{n} rows repeat an earlier row word for word.",
        "delete the copies; repeated rows are learnt by heart.",
    ),
    "role_order": (
        "warning",
        "{n} rows have roles out of order (two alike in a row, a late system message, or an "
        "answer without a question).",
        "look at these conversations; most models expect user and assistant in turn.",
    ),
    "missing_end_of_turn": (
        "warning",
        "In {n} rows no end-of-turn token follows the last answer: the model does not learn to "
        "stop.",
        "choose a `model.chat_template` whose end-of-turn token the tokenizer knows.",
    ),
    "missing_bos": (
        "info",
        "{n} rows begin without the start token that the tokenizer puts before plain text.",
        "nothing, if the template is the model's own; else choose one that writes it.",
    ),
    "unanswered": (
        "info",
        "{n} rows end with a question: their last turn is not learnt.",
        "nothing, if that is meant.",
    ),
    "long_row": (
        "info",
        "{n} rows are more than four times as long as 95 of 100 rows.",
        "look at them: a few very long rows cost memory for all.",
    ),
}


class _Review:
    """Collects which rows have which finding, row by row."""

    def __init__(self, detection: Detection) -> None:
        self.detection = detection
        self.encoder: Encoder | None = None
        self.found: dict[str, list[int]] = {}
        self.why: dict[str, str] = {}
        self.lengths: dict[int, int] = {}
        self._seen: set[str] = set()
        self._collected = RowCollector()
        self._special: set[int] | None = None
        self._bos: bool | None = None

    def look(self, number: int, row: dict[str, Any]) -> None:
        """Check one row."""
        text = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)
        if text in self._seen:
            self._mark("duplicate", number)
        self._seen.add(text)
        try:
            messages = to_messages(row, self.detection, number=number)
        except RowInvalid as error:
            self._mark("invalid_row", number, error.why)
            return
        self._look_at_turns(number, messages)
        if self.encoder is None:
            return
        try:
            encoded = self.encoder(messages)
        except TemplateInvalid as error:
            self._mark("template_refuses", number, error.why)
            return
        self._look_at_tokens(number, encoded, plain=messages[0]["role"] == "text")

    def report(self, rows: int) -> CheckReport:
        """All findings, worst first."""
        self._look_at_lengths()
        statistics = self._collected.statistics() if self.encoder is not None else None
        findings = [self._finding(code, rows) for code in _TEXTS if code in self.found]
        if len(self.found.get("masked_row", [])) == rows:
            findings.append(_all_masked(rows))
        findings.sort(key=lambda finding: _ORDER[finding.severity])
        return CheckReport(
            findings=findings, detection=self.detection, statistics=statistics, rows=rows
        )

    def _mark(self, code: str, number: int, why: str = "") -> None:
        self.found.setdefault(code, []).append(number)
        self.why.setdefault(code, why)

    def _look_at_turns(self, number: int, messages: list[Message]) -> None:
        roles = [message["role"] for message in messages]
        answers = [m for m in messages if m["role"] in ("assistant", "text")]
        if any(not m["content"].strip() and "tool_calls" not in m for m in answers):
            self._mark("empty_answer", number)
        spoken = [role for role in roles if role in ("user", "assistant")]
        if "system" in roles[1:] or spoken[:1] == ["assistant"] or _repeats(roles):
            self._mark("role_order", number)
        if roles[-1] in ("user", "system"):
            self._mark("unanswered", number)

    def _look_at_tokens(self, number: int, encoded: Encoded, *, plain: bool) -> None:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        self._collected.add(number, encoded)
        self.lengths[number] = encoded.length
        ids, labels = encoded.input_ids, encoded.labels
        if not any(label != MASKED for label in labels[1:]):
            self._mark("masked_row", number)
        if encoded.truncated:
            self._mark("truncated", number)
            if labels[-1] != MASKED and not plain:
                self._mark("answer_cut", number)
        bos = tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            self._mark("double_bos", number)
        elif bos is not None and ids[:1] != [bos] and self._adds_bos():
            self._mark("missing_bos", number)
        if not encoded.truncated and not self._stops(encoded):
            self._mark("missing_end_of_turn", number)

    def _stops(self, encoded: Encoded) -> bool:
        """Whether the last learnt span ends in a token that is no ordinary text."""
        if self._special is None:
            assert self.encoder is not None
            self._special = special_ids(self.encoder.tokenizer)
        learnt = [label for label in encoded.labels if label != MASKED]
        tail = learnt[-3:]  # "all" also learns the blank after the token
        return not learnt or any(token in self._special for token in tail)

    def _adds_bos(self) -> bool:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        if self._bos is None:
            self._bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        return self._bos

    def _look_at_lengths(self) -> None:
        ordered = sorted(self.lengths.values())
        if len(ordered) < 20:
            return
        limit = 4 * ordered[len(ordered) * 95 // 100]
        for number, length in self.lengths.items():
            if length > limit:
                self._mark("long_row", number)

    def _finding(self, code: str, rows: int) -> Finding:
        severity, title, do = _TEXTS[code]
        numbers = self.found[code]
        share = f"{100 * len(numbers) / rows:.1f} %"
        return Finding(
            severity=severity,
            code=code,
            title=title.format(n=len(numbers), rows=rows, share=share, why=self.why[code]),
            count=len(numbers),
            examples=numbers[:EXAMPLES],
            do=do,
        )


def _repeats(roles: list[str]) -> bool:
    return any(a == b and a in ("user", "assistant") for a, b in pairwise(roles))


def _all_masked(rows: int) -> Finding:
    return Finding(
        severity="error",
        code="nothing_to_learn",
        title="No row has anything to learn.",
        count=rows,
        examples=list(range(min(EXAMPLES, rows))),
        do="give the rows answers, raise `model.max_seq_length`, or set `data.train_on` to `all`.",
    )
