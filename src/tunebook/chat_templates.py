"""The names of chat templates and response masks that tutorials know: a thin face over `data`.

It holds no logic of its own beyond handing datasets and trainers to the functions below.
"""

from __future__ import annotations

import logging
from typing import Any

from tunebook.data.conversations import standard_role
from tunebook.data.conversions import (
    from_sharegpt_turns,
    stitched,
    to_sharegpt_turns,
    to_turns,
)
from tunebook.data.examples import ExampleTemplate
from tunebook.data.formats import detect_format
from tunebook.data.loading import quiet_datasets
from tunebook.data.mapping import MergedPrompt
from tunebook.data.markers import MarkerMasker, Markers, find_markers, nothing_marked
from tunebook.data.masking import MASKED
from tunebook.data.templates import CHAT_TEMPLATES, compiled, get_chat_template
from tunebook.errors import DatasetUnreadable, FormatUnknown, RecipeInvalid, RowInvalid

__all__ = [
    "CHAT_TEMPLATES",
    "apply_chat_template",
    "get_chat_template",
    "standardize_data_formats",
    "standardize_sharegpt",
    "to_sharegpt",
    "train_on_responses_only",
]
logger = logging.getLogger(__name__)


def standardize_data_formats(
    dataset: Any,
    tokenizer: Any = None,
    aliases_for_system: list[str] | None = None,
    aliases_for_user: list[str] | None = None,
    aliases_for_assistant: list[str] | None = None,
    batch_size: int = 1000,
    num_proc: int | None = None,
) -> Any:
    """The dataset with a column `conversations` of `role`/`content` turns, from ShareGPT or alike.

    Args:
        dataset: a `datasets.Dataset` with a column of turns.
        tokenizer: not needed; taken because tutorials give it.
        aliases_for_system: names of the system role beside the usual ones; likewise the next two.

    Raises:
        FormatUnknown: no column holds turns.
        RowInvalid: a role is unknown, or a turn lacks its text.
    """
    detection = detect_format(dataset)
    if detection.format not in ("messages", "sharegpt"):
        raise FormatUnknown(
            "The dataset holds no conversations.",
            f"it was taken for `{detection.format}`: {detection.reason}",
            "use a column `conversations` that holds lists of turns.",
        )
    extra = dict.fromkeys(aliases_for_system or [], "system")
    extra |= dict.fromkeys(aliases_for_user or [], "user")
    extra |= dict.fromkeys(aliases_for_assistant or [], "assistant")
    columns = detection.columns
    role_key, content_key = columns["role"], columns["content"]

    def standard(turn: dict[str, Any]) -> dict[str, str]:
        role = extra.get(turn[role_key]) or standard_role(turn[role_key])
        if role is None or turn.get(content_key) is None:
            raise RowInvalid(
                "A turn cannot be understood.",
                f"its `{role_key}` is {turn[role_key]!r}, its `{content_key}` "
                f"{'missing' if turn.get(content_key) is None else 'there'}.",
                "name the role in `aliases_for_user` or its neighbours, or mend the row.",
            )
        return {"role": role, "content": turn[content_key]}

    def convert(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        chats = batch[columns["messages"]]
        return {"conversations": [[standard(turn) for turn in chat] for chat in chats]}

    with quiet_datasets():
        return dataset.map(convert, batched=True, batch_size=batch_size, num_proc=num_proc)


standardize_sharegpt = standardize_data_formats


EXAMPLE = """Below are some instructions that describe some tasks. Write responses that \
appropriately complete each request.

### Instruction:
{INPUT}

### Response:
{OUTPUT}"""


def to_sharegpt(
    dataset: Any,
    merged_prompt: str = "",
    merged_column_name: str = "instruction",
    output_column_name: str = "output",
    remove_unused_columns: bool = True,
    conversation_extension: int = 1,
    random_state: int = 3407,
) -> Any:
    """The dataset with a column `conversations` of `from`/`value` turns, from columns of text.

    Args:
        dataset: a `datasets.Dataset` of questions and answers, or of `conversations` with
            `role`/`content` turns.
        merged_prompt: a question made of columns: `"{instruction}[[\\nInput: {input}]]"`; a block
            in double brackets is left out where its column is empty.
        merged_column_name: the column of questions, where there is no merged prompt.
        output_column_name: the column of answers.
        remove_unused_columns: keep `conversations` only.
        conversation_extension: how many rows, drawn independently, make up one conversation.
        random_state: for those draws.

    Raises:
        FormatUnknown: a column named is not there.
    """
    columns = list(dataset.column_names)
    if "conversations" in columns:
        with quiet_datasets():
            return dataset.map(_as_sharegpt)
    prompt = MergedPrompt(merged_prompt or f"{{{merged_column_name}}}")
    prompt.check(columns)
    MergedPrompt(f"{{{output_column_name}}}").check(columns)
    questions = [prompt.fill(dict(row)) for row in dataset]
    answers = ["" if text is None else str(text) for text in dataset[output_column_name]]
    places = stitched(len(questions), conversation_extension, random_state)

    def converse(_: dict[str, Any], number: int) -> dict[str, Any]:
        rows = places[number]
        return {"conversations": to_turns([questions[i] for i in rows], [answers[i] for i in rows])}

    unused = columns if remove_unused_columns else None
    with quiet_datasets():
        return dataset.map(converse, with_indices=True, remove_columns=unused)


def _as_sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    turns = row["conversations"]
    already = bool(turns) and "from" in turns[0]
    return {"conversations": turns if already else to_sharegpt_turns(turns)}


def apply_chat_template(
    dataset: Any,
    tokenizer: Any = None,
    chat_template: str = EXAMPLE,
    default_system_message: str = (
        "Below are some instructions that describe some tasks. Write responses that "
        "appropriately complete each request."
    ),
    extra_eos_tokens: list[str] | None = None,
) -> Any:
    """The dataset with a column `text`: its `conversations`, written as the example shows.

    The tokenizer given gets the template, so that chat and export speak the same way.

    Args:
        dataset: with a column `conversations` of `from`/`value` or `role`/`content` turns.
        tokenizer: whose start and end tokens are meant.
        chat_template: an example text with `{INPUT}`, `{OUTPUT}` and perhaps `{SYSTEM}`; two rounds
            of question and answer show how a chat goes on.
        default_system_message: for `{SYSTEM}` where a conversation has no system message.
        extra_eos_tokens: other texts that end an answer; where the example ends in one of them or
            in the tokenizer's own end token, no other is added.

    Raises:
        TemplateInvalid: the example cannot be understood.
        RecipeInvalid: there is no tokenizer.
    """
    if tokenizer is None:
        raise RecipeInvalid(
            "There is no tokenizer.",
            "its start and end tokens belong into the text.",
            "give `tokenizer=tokenizer`.",
        )
    example = ExampleTemplate.of(chat_template)
    ends = [token for token in [tokenizer.eos_token, *(extra_eos_tokens or [])] if token]
    ended = any(example.ending.rstrip().endswith(token) for token in ends)
    start_ids = tokenizer("a")["input_ids"][:1]
    starts = tokenizer.bos_token is not None and start_ids == [tokenizer.bos_token_id]
    tokenizer.chat_template = compiled(
        example.jinja(
            default_system=default_system_message,
            start=tokenizer.bos_token if starts else "",
            end="" if ended or tokenizer.eos_token is None else tokenizer.eos_token,
        )
    )

    def write(row: dict[str, Any]) -> dict[str, str]:
        turns = row["conversations"]
        messages = from_sharegpt_turns(turns) if turns and "from" in turns[0] else turns
        return {"text": tokenizer.apply_chat_template(messages, tokenize=False)}

    from datasets.fingerprint import generate_random_fingerprint

    # A fingerprint of our own: else the tokenizer is pickled to make one, which takes seconds.
    with quiet_datasets():
        return dataset.map(write, new_fingerprint=generate_random_fingerprint())


def train_on_responses_only(
    trainer: Any,
    instruction_part: str | None = None,
    response_part: str | None = None,
    force_match: bool = True,
    tokenizer: Any = None,
    return_function: bool = False,
    num_proc: int | None = None,
    last_response_only: bool = False,
    mask_out_tokens: list[int | str] | None = None,
) -> Any:
    """Make a TRL `SFTTrainer` learn the answers only, whatever its dataset was made from.

    Args:
        trainer: with tokenised datasets (`input_ids`), as TRL makes them when it is built; may be
            None with `return_function` and a tokenizer.
        instruction_part: what stands before each question in the rendered text. With
            `response_part` left out too, both are taken from the tokenizer's chat template.
        response_part: what stands before each answer.
        force_match: the parts must be there with their line ends.
        tokenizer: the trainer's own by default.
        return_function: give back the function from a batch to `labels`; change nothing.
        last_response_only: learn only the last answer of each row.
        mask_out_tokens: tokens, as ids or texts, that are never learnt.

    Returns:
        The trainer, with `labels` in its datasets; rows without an answer are left out.

    Raises:
        NothingToLearn: no row of a dataset has an answer.
        TemplateInvalid: the parts were left out and the template does not show them.
    """
    tokenizer = tokenizer if tokenizer is not None else trainer.processing_class
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    if (instruction_part is None) != (response_part is None):
        raise RecipeInvalid(
            "Only one of the two parts was given.",
            "`instruction_part` and `response_part` belong together.",
            "give both, or neither to take them from the chat template.",
        )
    if instruction_part is None or response_part is None:
        markers = find_markers(tokenizer)
    else:
        markers = Markers(instruction_part, response_part)
    masker = MarkerMasker(
        tokenizer,
        markers,
        force_match=force_match,
        last_response_only=last_response_only,
        mask_out_tokens=mask_out_tokens or (),
    )
    if return_function:
        return masker
    trainer.train_dataset = _masked(trainer.train_dataset, masker, tokenizer, num_proc)
    if isinstance(trainer.eval_dataset, dict):
        trainer.eval_dataset = {
            name: _masked(part, masker, tokenizer, num_proc)
            for name, part in trainer.eval_dataset.items()
        }
    elif trainer.eval_dataset is not None:
        trainer.eval_dataset = _masked(trainer.eval_dataset, masker, tokenizer, num_proc)
    _keep_labels(trainer, tokenizer)
    return trainer


def _masked(dataset: Any, masker: MarkerMasker, tokenizer: Any, num_proc: int | None) -> Any:
    from datasets.fingerprint import generate_random_fingerprint

    first = next(iter(dataset))
    if "input_ids" not in first:
        raise DatasetUnreadable(
            "The trainer's dataset is not tokenised.",
            f"its columns are {', '.join(f'`{name}`' for name in first)}, without `input_ids`.",
            "let TRL's SFTTrainer prepare it, then call `train_on_responses_only`.",
        )
    how: dict[str, Any] = {"num_proc": num_proc} if hasattr(dataset, "num_rows") else {}
    # A fingerprint of our own: else the tokenizer is pickled to make one, which takes seconds.
    mark = {"new_fingerprint": generate_random_fingerprint()} if how else {}
    with quiet_datasets():
        labelled = dataset.map(masker, batched=True, **how, **mark)
        kept = labelled.filter(_has_labels, **how)
    if not hasattr(kept, "num_rows"):
        return kept
    if kept.num_rows == 0:
        raise nothing_marked(masker, tokenizer, first["input_ids"])
    if kept.num_rows < labelled.num_rows:
        left_out = labelled.num_rows - kept.num_rows
        empty = next(n for n, labels in enumerate(labelled["labels"]) if not _learns(labels))
        logger.warning(
            "%d of %d rows hold no answer behind %r and are left out; the first is row %d.",
            left_out,
            len(labelled),
            masker.markers.response,
            empty,
        )
    return kept


def _has_labels(row: dict[str, Any]) -> bool:
    return _learns(row["labels"])


def _learns(labels: list[int]) -> bool:
    return any(label != MASKED for label in labels[1:])


def _keep_labels(trainer: Any, tokenizer: Any) -> None:
    """Replace a collator that would write labels anew from the ids, or could not pad them."""
    import transformers

    overwriting = (
        transformers.DataCollatorForLanguageModeling,
        transformers.DataCollatorWithPadding,
    )
    if isinstance(trainer.data_collator, overwriting):
        trainer.data_collator = transformers.DataCollatorForSeq2Seq(tokenizer)
