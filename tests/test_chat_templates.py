"""The tutorials' functions, and response masks in a real SFTTrainer against a loss made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunebook.chat_templates import (
    get_chat_template,
    standardize_sharegpt,
    train_on_responses_only,
)
from tunebook.data.markers import MarkerMasker, find_markers
from tunebook.errors import FormatUnknown, NothingToLearn, RecipeInvalid, RowInvalid

CHATS = [
    ["What is 2+2?", "4", "And 3+3?", "It is 6."],
    ["Say a bird 🦜", "Parrot"],
    ["Hello", "Good day, how can I help?"],
]
ENDS = {"qwen2.5": "<|im_end|>", "llama-3.1": "<|eot_id|>"}
PARTS = {
    "qwen2.5": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    "llama-3.1": (
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}


@pytest.fixture(scope="module", params=list(ENDS))
def named(request: pytest.FixtureRequest, unpacked_tokenizers: dict[str, Path]) -> tuple[str, Any]:
    from transformers import AutoTokenizer

    return request.param, AutoTokenizer.from_pretrained(unpacked_tokenizers[request.param])


def texts(tokenizer: Any) -> list[str]:
    rows = []
    for said in CHATS:
        roles = ["user", "assistant"] * len(said)
        chat = [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]
        rows.append(tokenizer.apply_chat_template(chat, tokenize=False))
    return rows


def build_trainer(tokenizer: Any, folder: Path, rows: list[str], **more: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig

    from tunebook.training.trainer import SFTTrainer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        max_steps=1,
        report_to="none",
        use_cpu=True,
        shuffle_dataset=False,
        disable_tqdm=True,
        logging_steps=1,
        learning_rate=1e-9,
        **more.pop("config", {}),
    )
    return SFTTrainer(
        model=LlamaForCausalLM(config),
        args=args,
        train_dataset=Dataset.from_dict({"text": rows}),
        eval_dataset=Dataset.from_dict({"text": rows[:1]}),
        processing_class=tokenizer,
        **more,
    )


def learnt(tokenizer: Any, labels: list[int]) -> str:
    return tokenizer.decode([label for label in labels if label != -100])


def loss_by_hand(model: Any, rows: list[dict[str, list[int]]], wanted: list[list[str]], tok: Any):
    """Mean loss over the tokens of the answers, found in each row's text by their own words."""
    import torch

    total, count = 0.0, 0
    for row, answers in zip(rows, wanted, strict=True):
        ids = row["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        place = 0
        for answer in answers:
            want = tok(answer, add_special_tokens=False)["input_ids"]
            place = next(i for i in range(place, len(ids)) if ids[i : i + len(want)] == want)
            for i in range(place, place + len(want)):
                total -= logits[i - 1, ids[i]].item()
                count += 1
    return total / count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "collator"), [(True, "trl"), (False, "seq2seq"), (True, "language modelling")]
)
def test_the_trainers_loss_is_over_the_answers_only(named, tmp_path, given, collator):
    import transformers

    name, tokenizer = named
    more: dict[str, Any] = {}
    if collator == "seq2seq":
        more["data_collator"] = transformers.DataCollatorForSeq2Seq(tokenizer)
    if collator == "language modelling":
        more["data_collator"] = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = build_trainer(tokenizer, tmp_path, texts(tokenizer), **more)
    parts = dict(zip(("instruction_part", "response_part"), PARTS[name], strict=True))
    assert train_on_responses_only(trainer, **(parts if given else {})) is trainer
    tail = ENDS[name] + ("\n" if name == "qwen2.5" else "")
    wanted = [[answer + tail for answer in said[1::2]] for said in CHATS]
    for row, answers in zip(trainer.train_dataset, wanted, strict=True):
        assert learnt(tokenizer, row["labels"]).startswith("".join(answers))
    assert learnt(tokenizer, trainer.eval_dataset[0]["labels"]).startswith("4" + tail)
    rows = [dict(row) for row in trainer.train_dataset]
    # TRL puts the end token behind text that does not end in it: it is learnt as well.
    for row, answers in zip(rows, wanted, strict=True):
        answers[-1] = learnt(tokenizer, row["labels"]).removeprefix("".join(answers[:-1]))
    hand = loss_by_hand(trainer.model, rows, wanted, tokenizer)
    trainer.train()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(hand, rel=1e-3)


def test_packed_rows_are_masked_one_by_one(named, tmp_path):
    _, tokenizer = named
    packed = build_trainer(
        tokenizer, tmp_path, texts(tokenizer), config={"packing": True, "max_length": 512}
    )
    assert len(packed.train_dataset) == 1
    train_on_responses_only(packed)
    words = learnt(tokenizer, packed.train_dataset[0]["labels"])
    for said in CHATS:
        assert all(answer in words for answer in said[1::2])
        assert not any(question in words for question in said[::2])
    assert "system" not in words


def test_last_response_and_the_function_alone(named):
    name, tokenizer = named
    mask = train_on_responses_only(
        None, *PARTS[name], tokenizer=tokenizer, return_function=True, last_response_only=True
    )
    ids = tokenizer(texts(tokenizer)[0], add_special_tokens=False)["input_ids"]
    assert learnt(tokenizer, mask({"input_ids": [ids]})["labels"][0]).startswith("It is 6.")


def test_tokens_can_be_masked_out(named):
    name, tokenizer = named
    given: dict[str, Any] = {"tokenizer": tokenizer, "return_function": True}
    mask = train_on_responses_only(None, **given, mask_out_tokens=[ENDS[name]])
    ids = tokenizer(texts(tokenizer)[0], add_special_tokens=False)["input_ids"]
    words = learnt(tokenizer, mask({"input_ids": [ids]})["labels"][0])
    assert ENDS[name] not in words
    assert "It is 6." in words
    with pytest.raises(RecipeInvalid, match="vocabulary"):
        train_on_responses_only(None, **given, mask_out_tokens=["two words"])


def test_rows_without_an_answer_are_left_out(named, tmp_path, caplog):
    _, tokenizer = named
    rows = [*texts(tokenizer), "plain words only"]
    trainer = train_on_responses_only(build_trainer(tokenizer, tmp_path, rows))
    assert len(trainer.train_dataset) == len(CHATS)
    assert "1 of 4 rows" in caplog.text
    assert "the first is row 3" in caplog.text


def test_a_mark_that_is_nowhere_is_named(named, tmp_path):
    _, tokenizer = named
    trainer = build_trainer(tokenizer, tmp_path, texts(tokenizer))
    with pytest.raises(NothingToLearn, match=r"row 0 holds no '### Answer:'"):
        train_on_responses_only(trainer, "### Question:", "### Answer:")


def test_one_part_alone_is_refused(named):
    _, tokenizer = named
    with pytest.raises(RecipeInvalid, match="belong together"):
        train_on_responses_only(None, "a", tokenizer=tokenizer, return_function=True)


@pytest.mark.parametrize("template", ["chatml", "alpaca", "zephyr", "gemma", "mistral", "llama-3"])
def test_marks_of_plain_words_are_found_whatever_stands_around(named, template):
    _, tokenizer = named
    speaking = get_chat_template(tokenizer, template)
    masker = MarkerMasker(speaking, find_markers(speaking))
    for answer in ("Yes.", "1", "🦜", "No", "A\n\nB"):
        chat = [{"role": "user", "content": "Q!"}, {"role": "assistant", "content": answer}] * 2
        ids = speaking.apply_chat_template(chat)["input_ids"]
        words = learnt(speaking, masker({"input_ids": [ids]})["labels"][0])
        assert words.count(answer) == 2
        assert "Q!" not in words


def test_standardize_sharegpt():
    from datasets import Dataset

    turns = [{"from": "system", "value": "S"}, {"from": "human", "value": "q"}]
    data = Dataset.from_dict({"conversations": [[*turns, {"from": "gpt", "value": "a"}]]})
    assert standardize_sharegpt(data)[0]["conversations"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    again = standardize_sharegpt(standardize_sharegpt(data))
    assert again[0] == standardize_sharegpt(data)[0]


def test_standardize_sharegpt_takes_other_names_and_refuses_unknown_ones():
    from datasets import Dataset

    data = Dataset.from_dict({"conversations": [[{"from": "kapitän", "value": "ahoi"}]]})
    out = standardize_sharegpt(data, aliases_for_user=["kapitän"])
    assert out[0]["conversations"] == [{"role": "user", "content": "ahoi"}]
    with pytest.raises(RowInvalid, match="kapitän"):
        standardize_sharegpt(data)
    with pytest.raises(FormatUnknown, match="no conversations"):
        standardize_sharegpt(Dataset.from_dict({"text": ["a"]}))
