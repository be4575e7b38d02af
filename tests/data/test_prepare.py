"""From a recipe to tables, to the token view and to findings, with one encoding for all."""

from __future__ import annotations

import json
import time

import pytest

from tunebook.data import check, detect_format, encode_conversation, prepare_data, token_view
from tunebook.data.masking import MASKED
from tunebook.data.tokens import preview_rows
from tunebook.errors import (
    DatasetEmpty,
    FormatUnsuitable,
    NothingToLearn,
    RowInvalid,
    SourceMissing,
    TemplateInvalid,
)
from tunebook.recipe import Recipe

ROWS = [{"prompt": f"Question {i}", "completion": f"Answer {i} 🦜"} for i in range(20)]


def test_tables_hold_what_encode_conversation_says(tokenizer, chat):
    model = tokenizer("qwen2.5")
    done: list[tuple[int, int]] = []
    data = prepare_data(Recipe(), model, rows=ROWS, progress=lambda *at: done.append(at))
    assert data.train.column_names == ["input_ids", "labels"]
    for row, given in zip(data.train, ROWS, strict=True):
        wanted = encode_conversation(model, chat(None, given["prompt"], given["completion"]))
        assert row == {"input_ids": wanted.input_ids, "labels": wanted.labels}
    assert done[-1] == (20, 20)
    statistics = data.statistics
    assert data.lengths == [len(ids) for ids in data.train["input_ids"]]
    assert statistics.tokens == sum(data.lengths)
    assert statistics.longest == max(data.lengths)
    assert statistics.trained_tokens == sum(
        label != MASKED for labels in data.train["labels"] for label in labels
    )
    assert data.detection == detect_format(ROWS)


def test_a_share_is_held_back_by_the_seed(tokenizer):
    model = tokenizer("qwen2.5")
    first = prepare_data(Recipe.of(eval_fraction=0.25), model, rows=ROWS)
    same = prepare_data(Recipe.of(eval_fraction=0.25), model, rows=ROWS)
    other = prepare_data(Recipe.of(eval_fraction=0.25, seed=1), model, rows=ROWS)
    assert (len(first.train), len(first.eval), first.statistics.eval_rows) == (15, 5, 5)
    assert first.eval.to_list() == same.eval.to_list() != other.eval.to_list()
    both = [*first.train["input_ids"], *first.eval["input_ids"]]
    assert sorted(both) == sorted(prepare_data(Recipe(), model, rows=ROWS).train["input_ids"])
    with pytest.raises(DatasetEmpty, match="eval_fraction"):
        prepare_data(Recipe.of(eval_fraction=0.5), model, rows=ROWS[:1])


def test_another_file_to_measure(tokenizer, tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS[:3])))
    data = prepare_data(Recipe.of(eval_source=str(path)), tokenizer("qwen2.5"), rows=ROWS)
    assert (len(data.train), len(data.eval)) == (20, 3)


def test_masked_rows_are_left_out_and_counted(tokenizer):
    model = tokenizer("qwen2.5")
    rows = [*ROWS[:2], {"prompt": "long " * 100, "completion": "cut off"}]
    data = prepare_data(Recipe.of(max_seq_length=64), model, rows=rows)
    assert (len(data.train), data.statistics.masked_rows) == (2, 1)
    with pytest.raises(NothingToLearn, match="max_seq_length"):
        prepare_data(Recipe.of(max_seq_length=8), model, rows=ROWS)


def test_the_recipes_template_is_used(tokenizer):
    llama = tokenizer("llama-2")
    with pytest.raises(TemplateInvalid, match="chatml"):
        prepare_data(Recipe(), llama, rows=ROWS)
    data = prepare_data(Recipe.of(chat_template="alpaca"), llama, rows=ROWS)
    assert "### Response:\nAnswer 3" in llama.decode(data.train[3]["input_ids"])
    assert llama.chat_template is None


def test_a_bad_row_is_named(tokenizer):
    rows = [*ROWS[:3], {"prompt": "q", "completion": None}]
    with pytest.raises(RowInvalid, match="Row 3"):
        prepare_data(Recipe(), tokenizer("qwen2.5"), rows=rows)
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}]
    with pytest.raises(TemplateInvalid, match=r"row 0.*alternate"):
        prepare_data(Recipe(), tokenizer("mistral-7b-v0.2"), rows=[{"messages": turns}])


def test_twenty_thousand_short_rows_take_well_under_a_minute(tokenizer):
    model = tokenizer("qwen2.5")
    start = time.process_time()
    data = prepare_data(Recipe(), model, rows=ROWS * 1000)
    assert len(data.train) == 20_000
    assert time.process_time() - start < 45


@pytest.mark.parametrize("name", ["qwen2.5", "llama-3.1", "phi-3.5", "gemma-4", "mistral-7b-v0.2"])
@pytest.mark.parametrize("limit", [None, 25])
def test_cells_joined_give_the_text(name, limit, tokenizer, chat):
    model = tokenizer(name)
    said = "🏳️‍🌈 日本\n\n  e\u0301 \t<|end|> x"
    encoded = encode_conversation(model, chat(None, said, said + "!"), max_length=limit)
    view = token_view(model, encoded, row=4)
    joined = "".join(cell.text for cell in view.tokens)
    end = len(encoded.text) if limit is None else encoded.offsets[-1][1]
    assert joined == encoded.text[:end]
    assert [cell.id for cell in view.tokens] == encoded.input_ids
    assert [cell.trained for cell in view.tokens] == [x != MASKED for x in encoded.labels]
    assert (view.row, view.n_tokens) == (4, len(encoded.input_ids))
    assert view.n_trained == encoded.n_trained
    assert view.n_cut == encoded.length - view.n_tokens
    assert all(cell.text == "" for cell in view.tokens if cell.continues)
    assert {cell.role for cell in view.tokens if cell.trained} <= {"assistant"}


def test_previews_show_good_and_bad_rows(tokenizer):
    turns = [{"role": "user", "content": "x" * 5000}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns}, {"messages": [{"role": "pirate", "content": "y"}]}]
    shown = preview_rows(Recipe(), tokenizer("qwen2.5"), 0, 5, rows=rows)
    json.dumps(shown)
    assert [item["row"] for item in shown] == [0, 1]
    assert len(shown[0]["raw"]["messages"][0]["content"]) == 2001
    assert shown[0]["view"]["tokens"][0]["text"] == "<|im_start|>"
    assert shown[0]["error"] is None
    assert shown[1]["view"] is None
    assert "pirate" in shown[1]["error"]["why"]


def codes(report) -> set[str]:
    return {finding.code for finding in report.findings}


def test_good_data_has_no_findings(tokenizer):
    report = check(ROWS, tokenizer=tokenizer("llama-3.1"))
    assert report.ok
    assert report.findings == []
    assert report.statistics.rows == 20
    assert "20 rows: no errors." in str(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_each_finding(tokenizer):
    u, a = (
        (lambda t: {"role": "user", "content": t}),
        (lambda t: {"role": "assistant", "content": t}),
    )
    rows = [
        {"messages": [u("one"), a("1")]},
        {"messages": [u("one"), a("1")]},
        {"messages": [u("two"), a("  ")]},
        {"messages": [u("a"), u("b"), a("c")]},
        {"messages": [u("no answer")]},
        {"messages": [u("long"), a("word " * 300)]},
        {"messages": [{"role": "pirate", "content": "x"}]},
    ]
    recipe = Recipe.of(max_seq_length=64)
    report = check(recipe, rows=rows, tokenizer=tokenizer("qwen2.5"))
    found = {finding.code: finding.examples for finding in report.findings}
    assert found == {
        "invalid_row": [6],
        "duplicate": [1],
        "empty_answer": [2],
        "role_order": [3],
        "unanswered": [4],
        "masked_row": [4],
        "truncated": [5],
        "answer_cut": [5],
    }
    assert not report.ok
    assert report.findings[0].severity == "error"
    assert "pirate" in str(report)


def test_start_and_end_tokens_are_checked(tokenizer):
    from tunebook.data import get_chat_template

    llama = get_chat_template(tokenizer("llama-2"), "chatml")
    assert codes(check(ROWS, tokenizer=llama)) == {"missing_bos", "missing_end_of_turn"}
    twice = get_chat_template(
        llama,
        "{{ bos_token }}{{ bos_token }}{% for m in messages %}"
        "{{ m['content'] }}{{ eos_token }}{% endfor %}",
    )
    assert codes(check(ROWS, tokenizer=twice)) == {"double_bos"}


def test_everything_masked_and_unreadable_data_are_errors(tokenizer, tmp_path):
    qwen = tokenizer("qwen2.5")
    report = check(Recipe.of(max_seq_length=8), rows=ROWS, tokenizer=qwen)
    assert "nothing_to_learn" in codes(report)
    assert not report.ok
    assert codes(check([{"foo": "a", "bar": "b"}])) == {"FormatUnknown"}
    with pytest.raises(SourceMissing):
        check(tmp_path / "none.jsonl")
    report = check(ROWS, tokenizer=tokenizer("llama-2"))
    assert codes(report) == {"template_refuses"}
    assert not report.ok


def test_without_a_model_the_rows_alone_are_checked():
    report = check([*ROWS, ROWS[0]])
    assert codes(report) == {"duplicate"}
    assert report.statistics is None


def test_preferences_are_learnt_only_if_the_recipe_says_so(tokenizer):
    model = tokenizer("qwen2.5")
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"}]
    with pytest.raises(FormatUnsuitable, match="`preference`"):
        prepare_data(Recipe(), model, rows=rows)
    data = prepare_data(Recipe.of(format="preference"), model, rows=rows)
    text = model.decode(data.train[0]["input_ids"])
    assert "good" in text
    assert "bad" not in text
    labelled = [{"prompt": "q", "completion": f"a{i}", "label": i == 1} for i in range(3)]
    with pytest.raises(FormatUnsuitable, match="`unpaired_preference`"):
        prepare_data(Recipe(), model, rows=labelled)
    data = prepare_data(Recipe.of(format="unpaired_preference"), model, rows=labelled)
    assert len(data.train) == 1
    with pytest.raises(FormatUnsuitable, match="completion"):
        prepare_data(Recipe(), model, rows=[{"prompt": "q", "ground_truth": "a"}])
    part = {"prompt": "prompt", "completion": "ground_truth"}
    rows = [{"prompt": "q", "ground_truth": "a"}]
    assert len(prepare_data(Recipe.of(columns=part), model, rows=rows).train) == 1


def test_rows_that_cannot_be_used_are_skipped_on_demand(tokenizer):
    rows = [*ROWS[:3], {"prompt": "q", "completion": None}]
    data = prepare_data(Recipe.of(on_bad_rows="skip"), tokenizer("qwen2.5"), rows=rows)
    assert (len(data.train), data.statistics.skipped_rows) == (3, 1)
    with pytest.raises(NothingToLearn, match="Row 0"):
        prepare_data(
            Recipe.of(on_bad_rows="skip", columns="prompt=prompt, completion=completion"),
            tokenizer("qwen2.5"),
            rows=[{"prompt": "q", "completion": None}],
        )
