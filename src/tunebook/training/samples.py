"""What the model is asked while it learns, and when; and how it answers.

Knows a model, a tokenizer and tokenised rows; knows no trainer and no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.data.frames import common
from tunebook.engine import answer_ids, encode_messages
from tunebook.recipe import SamplesPart

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from tunebook.data import PreparedData

_MASKED = -100
_FIRST, _REPLY, _SECOND = "first question", "the reply", "second question"


@dataclass(frozen=True)
class Prompt:
    """Something to ask.

    Attributes:
        shown: the question as a person reads it.
        ids: what the model reads, up to where it is to speak.
        expected: the answer that the row holds.
    """

    shown: str
    ids: list[int]
    expected: str | None = None


class Sampler:
    """Asks a model the same prompts again and again.

    Args:
        every: steps between two times; None asks only when it is told to.
        tokens: longest answer.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        *,
        every: int | None = None,
        tokens: int = 64,
    ) -> None:
        self.prompts = list(prompts)
        self.every = every
        self._model = model
        self._tokenizer = tokenizer
        self._tokens = tokens

    def due(self, step: int, *, last: bool) -> bool:
        """Whether this step is one after which the model answers by itself."""
        return bool(self.every and self.prompts) and (last or step % (self.every or 1) == 0)

    def answers(self, stop_asked: Callable[[], bool]) -> Iterator[tuple[Prompt, str]]:
        """Each prompt with its answer, greedy, so that two times differ by what was learnt alone."""
        for prompt in self.prompts:
            if stop_asked():
                return
            yield (
                prompt,
                answer_ids(self._model, self._tokenizer, prompt.ids, max_new_tokens=self._tokens),
            )


def make_sampler(
    part: SamplesPart, model: PeftModel, tokenizer: PreTrainedTokenizerBase, data: PreparedData
) -> Sampler:
    """The sampler that a recipe asks for: of its prompts, else of held-out rows, else of the first."""
    if part.sample_prompts:
        prompts = [
            Prompt(text, encode_messages(tokenizer, text)[0].tolist())
            for text in part.sample_prompts
        ]
    else:
        rows = data.eval if data.eval is not None and len(data.eval) else data.train
        count = min(part.sample_rows, len(rows))
        prompts = [row_prompt(rows[number], tokenizer) for number in range(count)]
    return Sampler(model, tokenizer, prompts, every=part.sample_steps, tokens=part.sample_tokens)


def row_prompt(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """The prompt that a tokenised row is: all before its first learnt stretch, which is expected."""
    ids, labels = list(row["input_ids"]), list(row["labels"])
    first = next(i for i, label in enumerate(labels) if i and label != _MASKED)
    last = next((i for i in range(first, len(labels)) if labels[i] == _MASKED), len(labels))
    expected = _text(tokenizer, ids[first:last]).strip()
    return Prompt(question(ids[:first], tokenizer), ids[:first], expected)


def question(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The last question in a prompt without the template around it; all of it if none is found."""
    text = _text(tokenizer, ids, special=True)
    header, ending = _around(tokenizer)
    begin = text.rfind(header) if header else -1
    if begin < 0:
        return _text(tokenizer, ids).strip()
    inner = text[begin + len(header) :]
    end = inner.rfind(ending) if ending else -1
    return (inner[:end] if end >= 0 else inner).strip()


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the chat template writes right before a question, and right behind it.

    Without blanks, which some tokenizers write otherwise around special tokens.
    """
    turns = [
        {"role": "user", "content": _FIRST},
        {"role": "assistant", "content": _REPLY},
        {"role": "user", "content": _SECOND},
    ]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        head, rest = text.split(_FIRST)
        before = rest.split(_REPLY)[1].split(_SECOND)[0]
        opening = text.split(_SECOND)[1]
    except Exception:  # a template may refuse anything; the whole text is shown then
        return "", ""
    length = common(head[::-1], before[::-1])
    header = head[len(head) - length :]
    half, closed, rest = header.partition(">")
    if closed and "<" not in half:
        header = rest  # two tags may share their ends
    return header.strip(), (opening.split() or [""])[0]


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int], *, special: bool = False) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=not special))
