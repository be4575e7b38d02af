"""The demo, whole: it must teach something that anybody can see."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tunebook.cli import main
from tunebook.data.demo import demo_path
from tunebook.training import list_runs


@pytest.mark.slow
def test_after_a_minute_the_answers_are_plainly_different_and_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    found = re.search(r"exactly right\s+(\d+) of (\d+) before, (\d+) of \2 after", printed)
    assert found is not None
    before, count, after = (int(number) for number in found.groups())
    assert count >= 20
    assert before == 0
    assert after >= 0.9 * count

    (run,) = list_runs(tmp_path)
    assert run.state == "completed"
    assert run.history()[-1].loss < 0.1 < run.history()[0].loss
    assert (run.folder.exports / "merged_16bit" / "model.safetensors").is_file()
    for words in ("forecast", "measured", str(run.path), "JupyterLab"):
        assert words in printed


def test_the_questions_that_are_measured_are_never_trained_on() -> None:
    def questions(split: str) -> set[str]:
        lines = demo_path(split).read_text(encoding="utf-8").splitlines()
        return {json.loads(line)["messages"][-2]["content"] for line in lines}

    assert questions("train").isdisjoint(questions("heldout"))
