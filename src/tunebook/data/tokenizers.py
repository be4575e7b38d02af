"""The tokenizer that a recipe means, and plain text columns turned into ids.

Knows tokenizers and tables; knows no conversations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.data.loading import quiet_datasets
from tunebook.data.templates import with_recipe_template
from tunebook.models.loading import load_config, load_tokenizer
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def tokenizer_for(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The model's tokenizer with the recipe's chat template on it.

    Raises:
        ModelMissing, TokenizerMissing, TemplateInvalid: what is wrong with the recipe.
    """
    tokenizer: PreTrainedTokenizerBase = with_recipe_template(load_tokenizer(recipe.model), recipe)
    return tokenizer


def words_for(recipe: Recipe) -> Any:
    """The processor of a model that sees, else the tokenizer, with the recipe's chat template on it.

    Raises:
        ModelMissing, ModelInvalid, TokenizerMissing, TemplateInvalid: what is wrong with the recipe.
    """
    from tunebook.models.vision import is_vision, load_processor

    if is_vision(load_config(recipe.model)):
        return with_recipe_template(load_processor(recipe.model), recipe)
    return tokenizer_for(recipe)


def tokenize_texts(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, field: str, *, max_length: int | None
) -> Dataset:
    """A table of `input_ids` from a column of rendered text.

    Text that a chat template has rendered begins with the start token and ends with the end token
    already; each is added only where it is not there, so neither stands twice.

    Args:
        dataset: has the text column `field`.
        tokenizer: whose start and end tokens are meant.
        max_length: longer rows are cut on the right; None cuts nothing.
    """
    start, end = tokenizer.bos_token, tokenizer.eos_token

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = batch[field]
        if end:
            texts = [text if text.rstrip().endswith(end) else text + end for text in texts]
        begun = [bool(start) and text.startswith(start) for text in texts]
        rows = []
        for text, has_start in zip(texts, begun, strict=True):
            ids = tokenizer(text, add_special_tokens=not has_start)["input_ids"]
            rows.append(_ended_once(ids, tokenizer, max_length))
        return {"input_ids": rows}

    with quiet_datasets():
        return dataset.map(encode, batched=True, remove_columns=dataset.column_names)


def _ended_once(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> list[int]:
    # a tokenizer whose post-processor adds the end token would make it two
    if len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids[:max_length]
