"""What the model is asked while it learns, and when; and how it answers.

Knows a model, a tokenizer and tokenised rows; knows no trainer and no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.conversations import Conversation
from tunebook.data.frames import common
from tunebook.data.masking import Encoder
from tunebook.data.prepare import recipe_encoder
from tunebook.data.turns import IMAGE_MARK
from tunebook.data.vision import VisionEncoder, vision_row
from tunebook.data.vision_processor import BY_TOKEN
from tunebook.data.vision_texts import tokenizer_of
from tunebook.engine import answer_ids, encode_messages
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

    from tunebook.data import PreparedData

_MASKED = -100
_IMAGES = "samples"
_SHOWN = 1024  # pixels
_FIRST, _REPLY, _SECOND = "first question", "the reply", "second question"


@dataclass(frozen=True)
class Prompt:
    """Something to ask.

    Attributes:
        shown: the question as a person reads it.
        ids: what the model reads, up to where it is to speak.
        expected: the answer that the row holds.
        inputs: what the model reads of pictures.
        images: the pictures.
        paths: where they are kept, within the run folder.
    """

    shown: str
    ids: list[int]
    expected: str | None = None
    inputs: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    images: tuple[Image.Image, ...] = field(default=(), repr=False)
    paths: tuple[str, ...] = ()


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
                answer_ids(
                    self._model,
                    self._tokenizer,
                    prompt.ids,
                    max_new_tokens=self._tokens,
                    inputs=prompt.inputs,
                ),
            )

    def keep_images(self, folder: Path) -> None:
        """Write the prompts' pictures to the run folder, at most so large as a page shows them."""
        for number, prompt in enumerate(self.prompts):
            paths = []
            for index, image in enumerate(prompt.images):
                path = folder / _IMAGES / f"{number}-{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                small = image.copy()
                small.thumbnail((_SHOWN, _SHOWN))
                small.save(path)
                paths.append(path.relative_to(folder).as_posix())
            self.prompts[number] = replace(prompt, paths=tuple(paths))


def make_sampler(recipe: Recipe, model: PeftModel, words: Any, data: PreparedData) -> Sampler:
    """The sampler that a recipe asks for: of its prompts, else of held-out rows, else of the first.

    Args:
        words: the tokenizer, or the processor of a model that sees.
    """
    part, tokenizer = recipe.samples, tokenizer_of(words)
    encoder = recipe_encoder(recipe, words)
    if part.sample_prompts:
        prompts = [Prompt(text, _ids(encoder, tokenizer, text)) for text in part.sample_prompts]
    else:
        rows: Any = data.eval if data.eval is not None and len(data.eval) else data.train
        count = min(part.sample_rows, len(rows))
        prompts = [
            vision_prompt(rows[number], encoder)
            if isinstance(encoder, VisionEncoder)
            else row_prompt(rows[number], tokenizer)
            for number in range(count)
        ]
    return Sampler(model, tokenizer, prompts, every=part.sample_steps, tokens=part.sample_tokens)


def _ids(encoder: Encoder | VisionEncoder, tokenizer: Any, text: str) -> list[int]:
    if isinstance(encoder, Encoder):
        ids: list[int] = encode_messages(tokenizer, text)[0].tolist()
        return ids
    asked = [{"role": "user", "content": text}]
    written = encoder.texts.renderer().render(asked, generation_prompt=True)
    return encoder.texts.ids([written])[0][0]


def vision_prompt(row: dict[str, Any], encoder: VisionEncoder) -> Prompt:
    """The prompt that a row with pictures is: all before its first answer, which is expected."""
    talk = row["messages"]
    first = next((i for i, m in enumerate(talk) if m["role"] == "assistant"), len(talk) - 1)
    asked = Conversation(talk[: first + 1], talk.tools)
    count = sum(message["content"].count(IMAGE_MARK) for message in asked)
    opened = vision_row(asked, row["images"][:count], row["place"], row["folder"])
    (encoded,), batch = encoder.batch([opened])
    end = next((start for start, _ in encoded.learnt if start), len(encoded.input_ids))
    inputs = {
        name: value[:, :end] if name in BY_TOKEN else value
        for name, value in batch.items()
        if name not in ("input_ids", "labels", "attention_mask")
    }
    question = next((m["content"] for m in reversed(asked[:first]) if m["role"] == "user"), "")
    return Prompt(
        question.replace(IMAGE_MARK, "").strip(),
        encoded.input_ids[:end],
        asked[first]["content"],
        inputs,
        tuple(opened.images),
    )


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
