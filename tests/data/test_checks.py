"""What a check finds, and what a fix changes: only what it says, only in a new file."""

from __future__ import annotations

import json
import runpy
from typing import Any, get_args

import pytest

from tunebook.data import apply_fixes, check, detect_format, get_chat_template, write_rows
from tunebook.data.conversations import FormatName
from tunebook.data.suspects import damage, hidden, mended, personal, secret
from tunebook.errors import ExtraMissing, FolderExists, RecipeInvalid
from tunebook.recipe import Recipe

GOOD = {"prompt": "How are you?", "completion": "Fine."}


def row(prompt: str, completion: str = "Fine.") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def found(rows: list[dict[str, Any]], **knobs: Any) -> dict[str, list[int]]:
    report = check(rows, near_duplicates=False, **knobs)
    json.dumps(report.to_dict())
    return {finding.code: finding.examples for finding in report.findings}


@pytest.mark.parametrize(
    ("text", "code", "fix", "after"),
    [
        ("Write to ann@mail.org", "personal_data", "hide_personal_data", "[e-mail address]"),
        ("key hf_" + "a" * 34, "secret", "hide_personal_data", "[Hugging Face token]"),
        ("Stop <|im_end|> now", "special_token_text", "strip_special_tokens", "Stop  now"),
        ("CafÃ© crÃ¨me", "damaged_text", "mend_encoding", "Café crème"),
        ("bell\x07", "damaged_text", "mend_encoding", "bell"),
    ],
)
def test_suspect_texts_are_found_and_mended(text, code, fix, after):
    rows = [GOOD, row(text)]
    report = check(rows, near_duplicates=False)
    assert [(f.code, f.examples, f.fix) for f in report.findings] == [(code, [1], fix)]
    done = apply_fixes(rows, [fix])
    assert done.changed == {fix: 1}
    assert done.table[0] == GOOD
    assert after in done.table[1]["prompt"]
    change = done.examples[fix]
    assert (change.row, change.before, change.after) == (1, rows[1], done.table[1])
    assert check(done.table, near_duplicates=False).findings == []
    assert rows[1]["prompt"] == text


@pytest.mark.parametrize(
    "text",
    [
        "Ça va, âme, Ã la carte? 日本 🦜",
        "user@example.com",
        "1234 5678 9012 3456",
        "sk-learn",
        "a\tb\n",
    ],
)
def test_ordinary_texts_are_left_alone(text):
    assert (secret(text), personal(text)) == (None, None)
    assert damage(text) is None
    assert (mended(text), hidden(text)) == (text, text)


def test_no_secret_is_told():
    report = check([row("hf_" + "a" * 34)], near_duplicates=False)
    assert "aaaa" not in str(report)


def test_card_numbers_by_their_check_digit():
    assert personal("pay with 4111 1111 1111 1111") == "a card number"
    assert personal("pay with 4111 1111 1111 1112") is None
    assert hidden("DE89 3704 0044 0532 0130 00.") == "[bank account (IBAN)]."


def test_rows_in_another_format_are_told_from_broken_rows():
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": chat}] * 5 + [{"instruction": "q", "output": "a"}, {"messages": []}]
    assert found(rows) == {"mixed_formats": [5], "invalid_row": [6], "duplicate": [1, 2, 3, 4]}
    done = apply_fixes(rows, ["drop_invalid", "drop_duplicates"])
    assert (len(done.table), done.changed) == (1, {"drop_invalid": 2, "drop_duplicates": 4})
    for name, change in done.examples.items():
        assert change.after is None
        assert rows[change.row].items() <= change.before.items(), name


def test_near_duplicates():
    pytest.importorskip("rensa")
    words = [f"word{i}" for i in range(60)]
    other = [f"thing{i}" for i in range(60)]
    rows = [row(" ".join(words)), row(" ".join(other)), row(" ".join([*words[:-1], "x"]))]
    report = check(rows, near_duplicates=True)
    assert [(f.code, f.examples) for f in report.findings] == [("near_duplicate", [2])]
    assert len(apply_fixes(rows, ["drop_near_duplicates"]).table) == 2


def test_near_duplicates_without_their_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rensa", None)
    assert "tunebook[checks]" in check([GOOD]).not_checked[0]
    with pytest.raises(ExtraMissing, match="rensa"):
        check([GOOD], near_duplicates=True)


def test_rows_that_are_measured_too(tokenizer, tmp_path):
    path = tmp_path / "eval.jsonl"
    chat = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "Fine."}]
    path.write_text(json.dumps({"messages": chat}))
    recipe = Recipe.of(eval_source=str(path))
    rows = [row("a"), row("b")]
    report = check(recipe, rows=rows, tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    assert [(f.code, f.examples) for f in report.findings] == [("eval_overlap", [1])]
    assert apply_fixes(recipe, ["drop_eval_overlap"], rows=rows).table.to_list() == [row("a")]
    with pytest.raises(RecipeInvalid, match="eval_source"):
        apply_fixes(rows, ["drop_eval_overlap"])


@pytest.fixture
def divided():
    """A recipe that holds rows back, twenty rows, and the numbers of those that are held back."""
    from tunebook.data.prepare import divide_rows

    recipe = Recipe.of(eval_fraction=0.25)
    talks = [row(f"question {n} " + " ".join(f"w{n}x{i}" for i in range(40))) for n in range(20)]
    train, held = divide_rows(recipe, 20)
    return recipe, talks, train, held


def test_rows_on_both_sides_of_the_split(divided, tokenizer):
    recipe, rows, train, held = divided
    clean = check(recipe, rows=rows, tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    assert clean.findings == []
    for number in (train[0], train[1]):  # told once
        rows[number] = {**rows[held[0]], "prompt": rows[held[0]]["prompt"] + " "}
    rows[train[2]] = rows[train[3]]  # both on one side
    report = check(recipe, rows=rows, tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    (finding,) = [f for f in report.findings if f.code == "eval_overlap"]
    assert (finding.count, finding.fix) == (1, "drop_eval_overlap")
    assert "eval_fraction" in finding.title
    done = apply_fixes(recipe, ["drop_eval_overlap"], rows=rows)
    assert done.changed == {"drop_eval_overlap": 3}
    after = check(recipe, rows=done.table, tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    assert "eval_overlap" not in [f.code for f in after.findings]


def test_near_copies_on_both_sides_of_the_split(divided, tokenizer):
    pytest.importorskip("rensa")
    recipe, rows, train, held = divided
    rows[train[0]] = {**rows[held[0]], "prompt": rows[held[0]]["prompt"] + " changed"}
    rows[train[1]] = {**rows[train[2]], "prompt": rows[train[2]]["prompt"] + " changed"}
    report = check(recipe, rows=rows, tokenizer=tokenizer("qwen2.5"), near_duplicates=True)
    counts = {f.code: f.count for f in report.findings}
    assert counts == {"near_duplicate": 2, "eval_near_overlap": 1}


def test_near_copies_of_the_evaluation_source(tokenizer, tmp_path):
    pytest.importorskip("rensa")
    words = " ".join(f"word{i}" for i in range(60))
    path = tmp_path / "eval.jsonl"
    path.write_text(json.dumps(row(words + " end")))
    recipe = Recipe.of(eval_source=str(path))
    report = check(recipe, rows=[row("a"), row(words)], tokenizer=tokenizer("qwen2.5"))
    assert [(f.code, f.examples) for f in report.findings] == [("eval_near_overlap", [1])]


def test_calls_and_tools_tell_conversations_apart():
    from tunebook.data.conversations import Conversation
    from tunebook.data.duplicates import chat_digest

    def chat(name: str, tools: list[Any] | None = None) -> Conversation:
        call = {"type": "function", "function": {"name": name, "arguments": {}}}
        said = [{"role": "user", "content": "q"}]
        answer: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
        return Conversation([*said, answer], tools)

    digests = {chat_digest(c) for c in (chat("f"), chat("g"), chat("f", [{"x": 1}]), chat("f"))}
    assert len(digests) == 3


def test_a_recipe_file_is_checked_with_its_evaluation_rows(tmp_path, capsys):
    from tunebook.cli import main

    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 4)
    recipe = Recipe.of(data=str(path), eval_fraction=0.25).save(tmp_path / "recipe.yaml")
    assert main(["check", str(recipe), "--json"]) == 0
    codes = [f["code"] for f in json.loads(capsys.readouterr().out)["findings"]]
    assert {"eval_overlap", "duplicate"} <= set(codes)


def test_a_better_length_is_said(tokenizer):
    rows = [row(f"{i} " + "word " * 100) for i in range(20)]
    report = check(Recipe.of(max_seq_length=64), rows=rows, tokenizer=tokenizer("qwen2.5"))
    assert report.statistics.suggested_max_seq_length == 192
    assert "max_seq_length` to 192" in str(report)


def test_little_to_learn_and_unused_tools(tokenizer):
    rows = [row("word " * 900, "a"), {**GOOD, "tools": '[{"name": "f"}]'}]
    assert found(rows, tokenizer=tokenizer("qwen2.5")) == {"barely_trained": [0]}
    spoken = get_chat_template(tokenizer("qwen2.5"), "chatml")
    assert found(rows, tokenizer=spoken) == {"barely_trained": [0], "tools_unused": [1]}
    told = {"system": 'Call {"name": "f"}.', **rows[1]}
    assert found([told], tokenizer=tokenizer("qwen2.5")) == {"tools_twice": [0]}
    assert found([told], tokenizer=spoken) == {}  # the template writes none: they are told once
    recipe = Recipe.of(columns={"prompt": "prompt", "completion": "completion"})
    mapped = recipe.with_values({"data.columns": {**recipe.data.columns, "system": "system"}})
    assert check(mapped, rows=[told], tokenizer=spoken, near_duplicates=False).findings == []
    report = check(recipe, rows=rows[1:], tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    assert [(f.code, "`tools` is not taken" in f.title) for f in report.findings] == [
        ("tools_unused", True)
    ]


def test_the_page_on_data_is_made_from_the_tables(project_root):
    made = runpy.run_path(str(project_root / "docs" / "generate.py"))
    assert (project_root / "docs" / "data.md").read_text() == made["data_page"]()
    formats = {detect_format([row]).format for row in made["ROWS"]}
    assert formats == set(get_args(FormatName))


def test_rows_that_were_skipped_are_a_finding(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\nbroken\n")
    report = check(Recipe.of(data=str(path), on_bad_rows="skip"))
    finding = next(f for f in report.findings if f.code == "skipped_row")
    assert (finding.count, "Line 2" in finding.title) == (1, True)


@pytest.mark.parametrize(
    ("broken", "said"),
    [(b"{", "Line 2"), (b'{"prompt": "\xff"}', "0xff"), (b"[" * 9000 + b"]" * 9000, "levels deep")],
)
def test_a_broken_line_hides_nothing_else(tmp_path, broken, said):
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, broken, good, broken]))
    report = check(str(path), near_duplicates=False)
    found = {f.code: (f.severity, f.count, f.fix) for f in report.findings}
    assert found == {
        "broken_row": ("error", 2, "drop_invalid"),
        "duplicate": ("warning", 1, "drop_duplicates"),
    }
    assert said in report.findings[0].title
    assert not report.ok
    done = apply_fixes(str(path), ["drop_invalid"])
    assert (done.changed, len(done.table)) == ({"drop_invalid": 2}, 2)


def test_start_tokens_in_plain_text_are_taken_out():
    done = apply_fixes([{"text": "<s><s>words <s>"}], ["strip_special_tokens"])
    assert done.table[0] == {"text": "words <s>"}


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_fixes_are_written_to_a_new_file_only(tmp_path, ending):
    from tunebook.data import load_rows
    from tunebook.recipe import DataPart

    done = apply_fixes([GOOD, GOOD], ["drop_duplicates"])
    path = write_rows(done.table, tmp_path / f"new.{ending}")
    assert load_rows(DataPart(source=str(path))).to_list() == [GOOD]
    with pytest.raises(FolderExists, match="in place"):
        write_rows(done.table, path)
    with pytest.raises(RecipeInvalid, match="no fix `x`"):
        apply_fixes([GOOD], ["x"])
    with pytest.raises(RecipeInvalid, match=r"\.jsonl"):
        write_rows(done.table, tmp_path / "new.xyz")


def test_the_command_line_fixes_into_another_file(tmp_path, capsys):
    from tunebook.cli import main

    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 2)
    out = tmp_path / "b.jsonl"
    assert main(["check", str(path), "--fix", "drop_duplicates"]) == 2
    command = ["check", str(path), "--fix", "drop_duplicates", "--out", str(out), "--json"]
    capsys.readouterr()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == {"drop_duplicates": 1}
    assert out.read_text().count("\n") == 1
    assert path.read_text().count("\n") == 2
    assert main(["check", str(out), "--json"]) == 0


def test_a_template_that_is_not_the_models_own_is_said(tokenizer):
    recipe = Recipe.of(chat_template="alpaca")
    report = check(recipe, rows=[GOOD], tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    finding = next(f for f in report.findings if f.code == "template_mismatch")
    assert (finding.count, finding.examples) == (1, [])
    own = check(Recipe(), rows=[GOOD], tokenizer=tokenizer("qwen2.5"), near_duplicates=False)
    assert own.findings == []
