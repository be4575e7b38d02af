"""Looks at rows one by one, in text and in tokens, and remembers which has which finding.

It judges and counts; the words of the findings are in `findings`, and nothing here changes a row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tunebook.data.conversations import Conversation, Message, to_label, to_messages
from tunebook.data.duplicates import NearDuplicates, row_digest
from tunebook.data.findings import EXAMPLES, ORDER, TEXTS, CheckReport, Finding
from tunebook.data.formats import Detection, row_format
from tunebook.data.images import image_fixes, open_image
from tunebook.data.languages import language
from tunebook.data.marks import UNKNOWN, RowMarks
from tunebook.data.masking import MASKED, Encoded, Encoder
from tunebook.data.overlap import Overlap
from tunebook.data.prepare import AnyEncoder, RowCollector
from tunebook.data.suspects import damage, personal, secret, token_pattern
from tunebook.data.tokens import special_ids
from tunebook.data.tools import TOOL_COLUMNS, Tool, named_in
from tunebook.data.vision import VisionEncoder
from tunebook.data.vision_prepare import ImageCosts, sized_row
from tunebook.errors import ImageInvalid, ImageTooLong, RowInvalid, TemplateInvalid

DECODED = 2000
"""So many pictures are decoded whole by a check; of the others only the heads are read."""
_BATCH = 200
_BARELY = 0.01
_LIKE, _MOST = 20, 0.9  # rows of a known language, and the share of them that is in one
_ENOUGH = 200  # tokens; of a shorter row one in a hundred is less than a word or two


class Review:
    """Collects which rows have which finding.

    Args:
        detection: what the columns mean.
        encoder: renders and tokenises as training would; None leaves the tokens unchecked. One that
            takes pictures has them opened too.
        near: finds near-duplicates; None leaves them unchecked.
        overlap: knows what is measured on too; None leaves that unchecked.
    """

    def __init__(
        self,
        detection: Detection,
        encoder: AnyEncoder | None,
        near: NearDuplicates | None = None,
        overlap: Overlap | None = None,
    ) -> None:
        self.detection, self.encoder = detection, encoder
        self.marks = RowMarks()
        self.why: dict[str, str] = {}
        self._near, self._overlap = near, overlap
        self._seen: set[bytes] = set()
        self._languages: dict[str, list[int]] = {}
        self._collected = RowCollector()
        self._waiting: list[tuple[int, bool, Any]] = []
        tokenizer = encoder.tokenizer if encoder is not None else None
        self._tokens = token_pattern(tokenizer.all_special_tokens if tokenizer else [])
        self._special = special_ids(tokenizer) if tokenizer is not None else set()
        self._bos: bool | None = None
        self._vision = encoder if isinstance(encoder, VisionEncoder) else None
        self._costs = ImageCosts(self._vision) if self._vision else None
        self._pictures = 0

    def look(self, number: int, row: dict[str, Any]) -> None:
        """Check one row."""
        digest = row_digest(row)
        repeated = digest in self._seen
        self._seen.add(digest)
        if repeated:
            self.mark("duplicate", number)
        learnt = True
        try:
            if self.detection.format == "unpaired_preference":
                learnt = to_label(row, self.detection, number=number)
            pictures = self.encoder is None or self._vision is not None
            messages = to_messages(row, self.detection, number=number, pictures=pictures)
        except ImageInvalid as error:
            self.mark("bad_image", number, error.why)
            return
        except RowInvalid as error:
            other = row_format(row)
            if other in (None, "prompt_only", "text", self.detection.format):
                self.mark("invalid_row", number, error.why)
            else:
                self.mark("mixed_formats", number, f"they look like `{other}`")
            return
        self._look_for_likes(number, messages, repeated=repeated)
        self._look_at_turns(number, messages)
        self._look_at_text(number, messages)
        self._look_at_tools(number, row, messages)
        if learnt:
            self._encode(number, messages)
        else:
            self.marks.passed.append(number)

    def mark(self, code: str, number: int, why: str = "") -> None:
        """Note that a row has a finding; the first reason is kept."""
        self.marks.mark(code, number)
        self.why.setdefault(code, why)

    def report(self, rows: int) -> CheckReport:
        """All findings, worst first."""
        self._tokenize()
        self._look_at_lengths()
        self._look_at_languages()
        statistics = self._collected.statistics() if self.encoder is not None else None
        if statistics is not None and statistics.suggested_max_seq_length:
            self.why["truncated"] = f" to {statistics.suggested_max_seq_length}"
        findings = [self.finding(code, rows) for code in TEXTS if code in self.marks.found]
        if rows and len(self.marks.found.get("masked_row", [])) == rows:
            findings.append(_all_masked(rows))
        findings.sort(key=lambda finding: ORDER[finding.severity])
        return CheckReport(
            findings=findings, detection=self.detection, statistics=statistics, rows=rows
        )

    def finding(self, code: str, rows: int) -> Finding:
        """One finding in words."""
        severity, title, do, fix = TEXTS[code]
        numbers = self.marks.found[code]
        words = {"n": len(numbers), "rows": rows, "why": self.why[code]}
        share = f"{100 * len(numbers) / rows:.1f} %" if rows else ""
        of_all = code == "template_mismatch"  # it is about the template, not about a row
        return Finding(
            severity=severity,
            code=code,
            title=title.format(share=share, **words),
            count=rows if of_all else len(numbers),
            examples=[] if of_all else numbers[:EXAMPLES].tolist(),
            do=do.format(**words),
            fix=fix,
        )

    def _look_for_likes(self, number: int, messages: Conversation, *, repeated: bool) -> None:
        near = self._near.seen(number, messages) if self._near and not repeated else None
        if near is not None:
            self.mark("near_duplicate", number)
        how = self._overlap.meets(number, messages, near) if self._overlap else None
        if self._overlap is not None and how is not None:
            code = "eval_overlap" if how == "exact" else "eval_near_overlap"
            self.mark(code, number, self._overlap.where)

    def _look_at_turns(self, number: int, messages: list[Message]) -> None:
        roles = [message["role"] for message in messages]
        answers = [m for m in messages if m["role"] in ("assistant", "text")]
        if any(not m["content"].strip() and "tool_calls" not in m for m in answers):
            self.mark("empty_answer", number)
        if any(m["role"] == "user" and not m["content"].strip() for m in messages):
            self.mark("empty_question", number)
        spoken = [role for role in roles if role in ("user", "assistant")]
        if "system" in roles[1:] or spoken[:1] == ["assistant"] or _repeats(roles):
            self.mark("role_order", number)
        if roles[-1] in ("user", "system") and self.detection.format != "prompt_only":
            self.mark("unanswered", number)

    def _look_at_text(self, number: int, messages: list[Message]) -> None:
        plain = messages[0]["role"] == "text"
        text = "\n".join(message["content"] for message in messages)
        if why := damage(text):
            self.mark("damaged_text", number, why)
        if why := secret(text):
            self.mark("secret", number, why)
        if why := personal(text):
            self.mark("personal_data", number, why)
        if name := language(text):
            self._languages.setdefault(name, []).append(number)
        found = None if plain or self._tokens is None else self._tokens.search(text)
        if found:
            self.mark("special_token_text", number, f"`{found[0]}`")

    def _look_at_tools(self, number: int, row: dict[str, Any], messages: Conversation) -> None:
        told = messages[0]["content"] if messages[0]["role"] == "system" else ""
        if messages.tools is None:
            held = [name for name in TOOL_COLUMNS if row.get(name) not in (None, "", [], "[]")]
            if held and "tools" not in self.detection.columns and not named_in(told, row[held[0]]):
                self.mark("tools_unused", number, f"`{held[0]}` is not taken for the tools")
            return
        named, shown = named_in(told, messages.tools), self._shows(messages.tools)
        if named and shown:
            self.mark("tools_twice", number)
        elif not named and not shown:
            self.mark("tools_unused", number, "the chat template does not write them")

    def _shows(self, tools: list[Tool]) -> bool:
        """Whether the template writes tools; taken for granted where there is none to ask."""
        try:
            return self.encoder is None or self.encoder.renderer(tools).shows_tools
        except TemplateInvalid:
            return True  # `_encode` says of the row that it is refused

    def _encode(self, number: int, messages: Conversation) -> None:
        if self._vision is not None and self._costs is not None:
            self._look_at_images(number, messages, self._vision, self._costs)
        if not isinstance(self.encoder, Encoder):
            return
        try:
            rendered = self.encoder.render(messages)
        except TemplateInvalid as error:
            self.mark("template_refuses", number, error.why)
            return
        self._waiting.append((number, messages[0]["role"] == "text", rendered))
        if len(self._waiting) >= _BATCH:
            self._tokenize()

    def _look_at_images(
        self, number: int, messages: Conversation, encoder: VisionEncoder, costs: ImageCosts
    ) -> None:
        """The pictures of a row, the first of all decoded, and its tokens with what they take."""
        place, folder = f"Row {number}", encoder.folder
        try:
            for value in messages.images:
                for fix in image_fixes(value, place, folder=folder):
                    self.mark("mended_image", number, fix)
                self._pictures += 1
                if self._pictures <= DECODED:
                    open_image(value, place, folder=folder)
            sized = sized_row(messages, place, encoder, costs, folder)
        except ImageTooLong as error:
            self.mark("image_too_long", number, error.why)
        except ImageInvalid as error:
            self.mark("bad_image", number, error.why)
        except TemplateInvalid as error:
            self.mark("template_refuses", number, error.why)
        else:
            self._collected.count_images(sized.images, sized.image_tokens)
            self._look_at_tokens(number, sized.encoded, plain=messages[0]["role"] == "text")

    def _tokenize(self) -> None:
        if not isinstance(self.encoder, Encoder) or not self._waiting:
            return
        encoded = self.encoder.tokenize([rendered for _, _, rendered in self._waiting])
        for (number, plain, _), row in zip(self._waiting, encoded, strict=True):
            self._look_at_tokens(number, row, plain=plain)
        self._waiting = []

    def _look_at_tokens(self, number: int, encoded: Encoded, *, plain: bool) -> None:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        if self._vision is None:
            self._collected.add(number, encoded)
        else:
            length = len(encoded.input_ids)
            self._collected.count(number, length, encoded.length, encoded.n_trained)
        self.marks.measured(number, encoded.length)
        self.marks.tally.add(encoded.length, encoded.would_learn)
        ids, labels = encoded.input_ids, encoded.labels
        trained = len(labels) - labels.count(MASKED)
        if not any(label != MASKED for label in labels[1:]):
            self.mark("masked_row", number)
        elif trained < _BARELY * len(ids) and len(ids) >= _ENOUGH:
            self.mark("barely_trained", number)
        if encoded.truncated:
            self.mark("truncated", number)
            if labels[-1] != MASKED and not plain:
                self.mark("answer_cut", number)
        bos = tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            self.mark("double_bos", number)
        elif bos is not None and ids[:1] != [bos] and self._adds_bos():
            self.mark("missing_bos", number)
        if not encoded.truncated and not self._stops(labels):
            self.mark("missing_end_of_turn", number)

    def _stops(self, labels: list[int]) -> bool:
        """Whether the last learnt span ends in a token that is no ordinary text."""
        learnt = [label for label in labels if label != MASKED]
        tail = learnt[-3:]  # "all" also learns the blank after the token
        return not learnt or any(token in self._special for token in tail)

    def _adds_bos(self) -> bool:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        if self._bos is None:
            self._bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        return self._bos

    def _look_at_lengths(self) -> None:
        lengths = self.marks.lengths
        ordered = sorted(length for length in lengths if length != UNKNOWN)
        if len(ordered) < 20:
            return
        limit = 4 * ordered[len(ordered) * 95 // 100]
        for number, length in enumerate(lengths):
            if length > limit:
                self.mark("long_row", number)

    def _look_at_languages(self) -> None:
        by_size = sorted(self._languages.items(), key=lambda item: -len(item[1]))
        known = sum(len(numbers) for _, numbers in by_size)
        # Where many rows are in other languages, that is meant.
        if known < _LIKE or len(by_size) < 2 or len(by_size[0][1]) < _MOST * known:
            return
        others = [f"{name} ({len(numbers)})" for name, numbers in by_size[1:]]
        for number in sorted(number for _, numbers in by_size[1:] for number in numbers):
            self.mark("other_language", number, f"{', '.join(others)} amid {by_size[0][0]}")


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
