"""The model that ships inside: its files, answers and template, and the generator behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunebook.models.embedded as embedded
from tunebook.models.embedded.build.corpus import documents, pack, render
from tunebook.models.embedded.build.facts import all_facts, topics

FOLDER = Path(embedded.__path__[0])

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What colour is grass?"},
    {"role": "assistant", "content": "Green."},
    {"role": "user", "content": "And snow?"},
    {"role": "assistant", "content": "White."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")


def test_model_files_stay_under_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 12_000_000


def test_every_matrix_row_is_a_multiple_of_256(model: Any) -> None:
    rows = {name: p.shape[-1] for name, p in model.named_parameters() if p.ndim == 2}
    assert rows
    assert not {name: row for name, row in rows.items() if row % 256}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("Can you tell me what colour a frog is?", "A frog is green."),
        ("Please work out 8 plus 7.", "8 plus 7 is 15."),
        ("who are you", "I am Tunebook Tiny, a small language model."),
        ("Write kite in capital letters.", "KITE"),
    ],
)
def test_answers_known_questions(model: Any, tokenizer: Any, question: str, answer: str) -> None:
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=40)
    new = output[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == answer
    assert new[-1] == tokenizer.eos_token_id


def test_template_writes_what_the_model_was_trained_on(tokenizer: Any) -> None:
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == render(CHAT)


def test_template_mask_is_the_assistant_spans(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(
        CHAT, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    learnt = tokenizer.decode([token for token, mask in pairs if mask])
    assert learnt == "Green.<|end|>White.<|end|>"


def test_template_refuses_an_unknown_role(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="Roles are system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "1"}], tokenize=False)


def test_bos_comes_once(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer("Hello")["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("text", ["Grüße, 東京! 🦊", " two  spaces\n\ttab", "naïve café ½ ﬁ", ""])
def test_tokenizer_gives_any_text_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_the_same_seed_writes_the_same_documents() -> None:
    assert documents(3, 50) == documents(3, 50)
    assert documents(3, 50) != documents(4, 50)


def test_there_are_many_facts_and_no_question_has_two_answers() -> None:
    answers: dict[str, set[str]] = {}
    for fact in all_facts():
        for template in fact.topic.asks + fact.topic.held_asks:
            answers.setdefault(fact.fill(template), set()).add(fact.answer)
    assert len(all_facts()) > 1000
    assert not {ask: found for ask, found in answers.items() if len(found) > 1}


def test_phrasings_held_back_are_not_trained_on() -> None:
    for topic in topics():
        assert not set(topic.asks) & set(topic.held_asks)


def test_packed_rows_open_with_a_document_and_end_in_padding() -> None:
    packed = pack([[1, 7] * 200, [1, 8] * 100, [1, 9]], pad=0)
    assert len(packed) == 2 * 512
    assert list(packed[400:512]) == [0] * 112
    assert list(packed[512:516]) == [1, 8, 1, 8]
    assert list(packed[712:715]) == [1, 9, 0]


def test_loss_counts_answers_most_and_padding_not_at_all() -> None:
    torch = pytest.importorskip("torch")
    from tunebook.models.embedded.build.train import Ids, loss_weights

    ids = Ids(pad=0, bos=1, system=2, user=3, assistant=4, end=5)
    rows = torch.tensor([[1, 3, 10, 5, 4, 11, 5, 1, 12, 0, 0, 0]])
    expected = [0.2, 0.2, 0.2, 0.2, 1.0, 1.0, 0.2, 0.5, 0.5, 0.0, 0.0]
    torch.testing.assert_close(loss_weights(rows, ids), torch.tensor([expected]))
