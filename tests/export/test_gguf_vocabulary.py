"""What a GGUF says of its tokenizer; llama.cpp must then give the same ids and the same prompt."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tiny_gguf import (
    byte_level_tokenizer,
    metaspace_tokenizer,
    read_vocabulary,
    trimmed,
    write_tiny_model,
)
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlamaTokenizer

import tunebook.models.embedded as embedded
from tunebook.errors import (
    FileInvalid,
    TemplateInvalid,
    TokenizerUnsupported,
    VocabularyTooLarge,
)
from tunebook.export.gguf import judged_template
from tunebook.export.gguf.battery import cases
from tunebook.export.gguf.judge import LlamaServer, can_judge, other_ids
from tunebook.export.gguf.judged_template import refusal
from tunebook.export.gguf.vocabulary import Vocabulary, vocabulary_of

judged = pytest.mark.skipif(not can_judge(), reason="xllamacpp is not installed")
WHOLE = ("gpt2", "llama-2", "mistral-7b-v0.2", "phi-3.5")
TRIMMED = ("gemma-4", "llama-3.1", "qwen2.5", "qwen3")
TALK = [
    {"role": "user", "content": "Hi <|im_end|> there"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is 2+2?"},
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Kind = gguf.TokenType


@pytest.fixture(scope="module")
def real(
    unpacked_tokenizers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """A real tokenizer by name, the large ones with their first merges only."""
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            folder = unpacked_tokenizers[name]
            if name in TRIMMED:
                folder = trimmed(folder, tmp_path_factory.mktemp("trimmed") / name)
            loaded[name] = AutoTokenizer.from_pretrained(folder)
        return loaded[name]

    return load


def _vocabulary(tokenizer: Any) -> Vocabulary:
    return vocabulary_of(tokenizer, len(tokenizer))


def _same_prompt(server: LlamaServer, tokenizer: Any, vocabulary: Vocabulary) -> None:
    """llama-server's prompt for a conversation is the tokenizer's, as text and as ids."""
    said = tokenizer.apply_chat_template(
        TALK, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    today = datetime.date.today().strftime("%d %b %Y")
    found = server.prompt(TALK, enable_thinking=False).replace(today, "26 Jul 2024")
    start = tokenizer.bos_token if vocabulary.add_bos else ""
    assert start + found == said
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert server.token_ids(found, around=True) == ids


@judged
@pytest.mark.parametrize("name", [*WHOLE, *TRIMMED])
def test_llama_cpp_reads_real_tokenizers_as_they_are(
    name: str, real: Callable[[str], Any], tmp_path: Path
) -> None:
    tokenizer = real(name)
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []
        if tokenizer.chat_template:
            _same_prompt(server, tokenizer, vocabulary)


@judged
def test_the_embedded_model_s_tokenizer_and_template(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded.__path__[0])
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    assert (vocabulary.pre, vocabulary.add_bos) == ("gpt-2", True)
    assert vocabulary.tokens[vocabulary.eot or 0] == "<|end|>"
    assert "generation %}" not in (vocabulary.chat_template or "")
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []
        _same_prompt(server, tokenizer, vocabulary)


@judged
@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_pieces_with_byte_fallback(scheme: str, tmp_path: Path) -> None:
    tokenizer = metaspace_tokenizer(scheme)
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    assert vocabulary.model == "llama"
    assert vocabulary.add_space_prefix == bool(vocabulary.notes) == (scheme != "never")
    assert len(cases(tokenizer)) > 30
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []


@judged
def test_a_piece_tokenizer_s_blank_in_front_suits_conversations(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = metaspace_tokenizer("first", chat_template=template)
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    assert not vocabulary.add_space_prefix
    assert len(cases(tokenizer)) > 30
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []
        _same_prompt(server, tokenizer, vocabulary)


@judged
def test_transformers_own_llama_tokenizer(
    unpacked_tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = LlamaTokenizer.from_pretrained(unpacked_tokenizers["mistral-7b-v0.2"])
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []
        _same_prompt(server, tokenizer, vocabulary)


@judged
def test_added_tokens_are_found_as_in_training(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<quiet>"]})
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert kinds["<tool>"] == Kind.USER_DEFINED
    assert kinds["<quiet>"] == kinds["<|end|>"] == Kind.CONTROL
    assert kinds[f"[PAD{len(tokenizer)}]"] == Kind.UNUSED
    tool, quiet = (tokenizer.convert_tokens_to_ids(name) for name in ("<tool>", "<quiet>"))
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert other_ids(server, tokenizer) == []
        assert quiet in server.token_ids("a<quiet>b")
        typed = server.token_ids("a<quiet><tool>b", parse_special=False)
        assert quiet not in typed
        assert tool in typed


@judged
def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing behind it")
    with pytest.raises(FileInvalid, match=r"does not load broken\.gguf"):
        LlamaServer(tmp_path / "broken.gguf")


def test_scores_are_those_of_the_model_file_but_for_runs_of_blanks(
    real: Callable[[str], Any], shared_data: Path, tmp_path: Path
) -> None:
    fields = read_vocabulary(shared_data, "llama-spm", tmp_path)
    scores = zip(fields["tokens"], fields["scores"], strict=True)
    true = {token: score for token, score in scores if -(10**6) < score < 0}
    ours = _vocabulary(real("llama-2"))
    found = dict(zip(ours.tokens, ours.scores, strict=True))
    by_score = [sorted(true, key=lambda token: -where[token]) for where in (true, found)]
    assert len(true) > 31_000
    assert by_score[0] == by_score[1]


def test_the_end_of_a_turn_is_the_template_s(real: Callable[[str], Any]) -> None:
    ends = {}
    for name in (*WHOLE, *TRIMMED):
        vocabulary = _vocabulary(real(name))
        ends[name] = None if vocabulary.eot is None else vocabulary.tokens[vocabulary.eot]
    assert ends == {
        "gpt2": None,
        "llama-2": None,
        "mistral-7b-v0.2": "</s>",
        "phi-3.5": "<|end|>",
        "gemma-4": "<turn|>",
        "llama-3.1": "<|eot_id|>",
        "qwen2.5": "<|im_end|>",
        "qwen3": "<|im_end|>",
    }


def test_only_phi_3_is_named_so(real: Callable[[str], Any]) -> None:
    phi, llama = _vocabulary(real("phi-3.5")), _vocabulary(real("llama-2"))
    assert phi.model_name("My tune") == "My tune (Phi-3)"
    assert phi.model_name("my-PHI3-tune") == "my-PHI3-tune"
    assert llama.model_name("like-Phi-3-mini, phi3") == "like-Phi 3-mini, phi 3"
    assert llama.model_name("My tune") == "My tune"


def test_an_end_that_is_no_token_is_told() -> None:
    tokenizer = byte_level_tokenizer(chat_template=CHATML)
    vocabulary = _vocabulary(tokenizer)
    assert vocabulary.eot is None
    assert vocabulary.tokens[vocabulary.eos or 0] == "<|end|>"
    assert any("`<|im_end|>`, which is no token" in note for note in vocabulary.notes)


@judged
def test_names_of_tokens_that_llama_cpp_does_not_give_are_in_the_template(tmp_path: Path) -> None:
    template = "{{ pad_token }}{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    tokenizer = byte_level_tokenizer(chat_template=template, pad_token="<|begin|>")
    tokenizer.bos_token = None
    vocabulary = write_tiny_model(tmp_path / "tiny.gguf", tokenizer)
    assert vocabulary.bos is not None  # else llama.cpp takes any text token for one
    with LlamaServer(tmp_path / "tiny.gguf") as server:
        assert server.prompt(TALK[:1]) == "<|begin|>Hi <|im_end|> there<|end|>"


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{% with a = 1 %}{{ messages[0].content }}{% endwith %}", "statement `with`"),
        ("\n{{ messages | groupby('role') }}", "line 2 has a filter `groupby`"),
    ],
)
def test_without_llama_cpp_a_list_tells_what_its_templates_cannot_have(
    template: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal.cache_clear()
    monkeypatch.setattr(judged_template, "can_judge", lambda: False)
    with pytest.raises(TemplateInvalid, match=word):
        _vocabulary(byte_level_tokenizer(chat_template=template))


@judged
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% with a = 1 %}{{ messages[0].content }}{% endwith %}", "statement `with`"),
        ("{{ messages[0].content.swapcase() }}", "llama.cpp says: .*swapcase"),  # in no list
        ("{{ messages[0].content | list }}", "llama.cpp says: .*filter 'list'"),
    ],
)
def test_a_template_that_llama_cpp_cannot_run_is_refused_before_writing(
    template: str, why: str
) -> None:
    refusal.cache_clear()
    with pytest.raises(TemplateInvalid, match=why):
        _vocabulary(byte_level_tokenizer(chat_template=template))


@judged
def test_where_llama_cpp_runs_no_template_at_all_the_list_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusal.cache_clear()
    monkeypatch.setattr(judged_template, "_refused", lambda *_: "no such file")
    assert _vocabulary(byte_level_tokenizer(chat_template=CHATML)).chat_template == CHATML
    with pytest.raises(TemplateInvalid, match="groupby"):
        _vocabulary(byte_level_tokenizer(chat_template="{{ messages | groupby('role') }}"))
    refusal.cache_clear()


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    tokenizer = byte_level_tokenizer()
    with pytest.raises(VocabularyTooLarge, match=f"the embedding has {len(tokenizer) - 1} rows"):
        vocabulary_of(tokenizer, len(tokenizer) - 1)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(TokenizerUnsupported, match="WordLevel"):
        vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=words), 2)
