"""Each way of cutting text in the table is llama.cpp's way of that name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import byte_level_tokenizer, read_vocabulary, write_tiny_model
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tunebook.errors import PretokenizerUnknown
from tunebook.export.gguf import pretokenizers
from tunebook.export.gguf.judge import LlamaServer, can_judge, other_ids
from tunebook.export.gguf.pretokenizers import canonical, known_names, splitters
from tunebook.export.gguf.vocabulary import vocabulary_of

TABLE = tomllib.loads(Path(pretokenizers.__file__).with_suffix(".toml").read_text())
# What real vocabularies of these names never show, as their merges do not run across it.
UNSEEN = {"deepseek-llm": "0123456789\u3000١", "deepseek-coder": "\u3000"}


@pytest.mark.skipif(not can_judge(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("row", TABLE["splitters"], ids=lambda row: row["names"][0])
def test_llama_cpp_cuts_as_the_regexes_say(row: dict[str, Any], tmp_path: Path) -> None:
    name = row["names"][0]
    tokenizer = byte_level_tokenizer(row["splits"], ignore_merges=row["ignore_merges"])
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    assert vocabulary.pre == name
    assert bool(vocabulary.notes) == ("differs" in row)
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        other = [
            case.text
            for case, _ in other_ids(server, tokenizer)
            if not set(case.text) & set(UNSEEN.get(name, ""))
        ]
    assert other == []


@pytest.mark.parametrize(("real", "pre"), [("gpt2", "gpt-2"), ("qwen2.5", "qwen2")])
def test_the_hash_of_llama_cpp_finds_the_same(
    real: str, pre: str, unpacked_tokenizers: dict[str, Path]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(unpacked_tokenizers[real])
    assert pretokenizers._name_by_hash(tokenizer) == pre
    # One token more, or another start token, and the hash would find nothing.
    tokenizer.add_tokens([AddedToken("1314151", normalized=False)])
    assert pretokenizers._name_by_hash(tokenizer) is None
    assert vocabulary_of(tokenizer, len(tokenizer)).pre == pre


@pytest.mark.parametrize("name", ["falcon"])
def test_the_table_has_the_regexes_of_real_models(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    """Real vocabularies, cut as the table says, have the ids that Hugging Face's tokenizers gave."""
    vocab = shared_data / "vocab"
    fields = read_vocabulary(shared_data, name, tmp_path)
    row = next(row for row in TABLE["splitters"] if name in row["names"])
    tokenizer = byte_level_tokenizer(row["splits"])
    tokenizer.backend_tokenizer.model = _bpe(fields["tokens"], fields["merges"])
    texts = (vocab / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode()
    ids = (vocab / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    for text, line in zip(texts.split("\n__ggml_vocab_test__\n"), ids, strict=False):
        assert tokenizer.backend_tokenizer.encode(text).ids == [int(n) for n in line.split()], text


def _bpe(tokens: list[str], merges: list[str]) -> Any:
    from tokenizers import models

    pairs = [tuple(merge.split(" ")) for merge in merges]
    return models.BPE({token: index for index, token in enumerate(tokens)}, pairs)


def test_spellings_of_one_regex() -> None:
    llama = splitters()[3].splits[0]
    tiktoken = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    )
    assert canonical(tiktoken) == llama
    assert canonical(tiktoken.replace(r"\r\n", "\r\n")) == llama
    assert canonical(tiktoken.replace("{1,3}", "{1,2}")) != llama


def test_an_unknown_way_of_cutting_is_told_with_its_nearest() -> None:
    qwen = next(row for row in TABLE["splitters"] if row["names"][0] == "qwen2")
    tokenizer = byte_level_tokenizer([qwen["splits"][0].replace(r"|\p{N}|", r"|\p{N}{1,5}|")])
    with pytest.raises(PretokenizerUnknown) as caught:
        vocabulary_of(tokenizer, len(tokenizer))
    assert "{1,5}" in caught.value.why
    assert "pre='qwen2'" in caught.value.do or "pre='llama-bpe'" in caught.value.do
    assert all(name in caught.value.do for name in ("tekken", "deepseek-v3"))
    assert vocabulary_of(tokenizer, len(tokenizer), pre="qwen2").pre == "qwen2"


def test_names_stand_once() -> None:
    names = known_names()
    assert len(names) == len(set(names))
    assert set(TABLE["hashes"]) <= set(names)
