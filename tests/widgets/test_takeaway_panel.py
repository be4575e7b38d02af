"""The take-away panel: sizes, progress, proof, the hub, and a token that stays in memory."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from tunebook.errors import Cancelled, HubTokenRefused, RecipeInvalid
from tunebook.events import ExportEvent
from tunebook.export import FORMATS, DynamicReport
from tunebook.export.gguf.divergence import Divergence
from tunebook.export.gguf.report import Choice
from tunebook.export.progress import Pass
from tunebook.recipe import ExportPart, Recipe
from tunebook.widgets import TakeAwayPanel, TryPanel
from tunebook.widgets._exports import written_form
from tunebook.widgets.takeaway import SHORTEST

_TYPES = ExportPart.model_fields["gguf_quantization"].annotation
TOKEN = "hf_" + "averysecretaverysecret"


def test_without_a_run_both_refuse_in_three_parts() -> None:
    for panel, message in (
        (TryPanel(), {"type": "send", "text": "hello"}),
        (TakeAwayPanel(), {"type": "save"}),
        (TakeAwayPanel(), {"type": "upload", "repo": "me/x", "token": TOKEN}),
    ):
        panel.handle(message)
        assert panel.error["name"] == "RunMissing"
        assert "Train" in panel.error["do"]


def test_while_training_both_refuse(fake_run: Any) -> None:
    fake_run.begin()
    for panel, message in (
        (TryPanel(run=fake_run), {"type": "send", "text": "hello"}),
        (TakeAwayPanel(run=fake_run), {"type": "save"}),
        (TakeAwayPanel(run=fake_run), {"type": "upload", "repo": "me/x", "token": TOKEN}),
    ):
        panel.handle(message)
        assert panel.error["name"] == "RunBusy"


def test_formats_come_with_their_predicted_sizes(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    eventually(lambda: all(form["size"] for form in panel.formats))
    assert [form["name"] for form in panel.formats] == list(FORMATS)
    assert panel.formats[0]["size"].startswith("about ")


def test_a_model_of_experts_has_sizes_though_it_cannot_be_planned(
    tmp_path: Path, eventually: Any
) -> None:
    config = {
        "model_type": "mixtral",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "vocab_size": 2048,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    panel = TakeAwayPanel(Recipe().with_values({"model.name": str(tmp_path)}))
    panel.studio.begin()
    eventually(lambda: all(row["size"] for row in panel.quantizations))
    assert panel.studio.plan is None
    assert "experts" in panel.studio.plan_error["why"]
    rows = {row["name"]: row["size"] for row in panel.quantizations}
    assert rows["bf16"] == "14.8 MiB"


def test_save_shows_paths_sizes_proof_and_how_to_load(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "save", "folder": str(fake_run.path / "there")})
    eventually(lambda: panel.files and not panel.working)
    (file,) = panel.files
    assert file["path"] == str(fake_run.path / "there" / "adapter")
    assert file["size"] == "2 B"
    assert file["verified"]["ok"]
    assert file["verified"]["summary"] == "Loaded again: the same"
    assert "FastLanguageModel.from_pretrained" in file["parts"][0]["usage"][0][1]
    assert "checked, the same" in panel.summary
    assert panel.progress == {}
    assert "Loaded again: the same" in panel.as_html()


def test_gguf_is_chosen_by_type_size_and_words(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    eventually(lambda: all(row["size"] for row in panel.quantizations))
    rows = {row["name"]: row for row in panel.quantizations}
    assert set(rows) <= set(get_args(get_args(_TYPES)[0]))
    shares = [row["share"] for row in panel.quantizations]
    assert shares == sorted(shares, reverse=True)
    assert rows["bf16"]["share"] == 1.0
    assert rows["bf16"]["bits"] == "16.0"
    assert rows["q8_0"]["usual"]
    panel.handle({"type": "set", "path": "export.formats", "value": ["gguf"]})
    assert panel.values["export.formats"] == ["gguf"]
    assert panel.values["export.gguf_quantization"] == ["q4_k_m"]
    one = panel.formats[-1]["size"]
    panel.handle({"type": "set", "path": "export.gguf_quantization", "value": ["q8_0", "q4_k_m"]})
    assert panel.formats[-1]["size"] != one  # of both files together
    assert 'run.export(["gguf"], quantization=["q8_0", "q4_k_m"])' in panel.code_now()["python"]
    assert "--formats gguf --gguf-quantization q8_0,q4_k_m" in panel.code_now()["shell"]


def test_each_gguf_file_comes_with_its_own_commands_and_notes(fake_run: Any) -> None:
    panel = TakeAwayPanel(Recipe().with_values({"export.gguf_quantization": ["q8_0", "q4_k_m"]}))
    panel.studio.run = fake_run
    folder = fake_run.path / "export" / "gguf"
    folder.mkdir(parents=True)
    (folder / "fake-Q2_K.gguf").write_text("of an earlier time")
    panel.save(["gguf"])
    (file,) = panel.files
    assert [(part["title"], part["size"]) for part in file["parts"]] == [
        ("Q8_0", "4 B"),
        ("Q4_K_M", "4 B"),
    ]
    assert "fake-Q4_K_M.gguf" in file["parts"][1]["usage"][0][1]
    assert file["size"] == "8 B"
    assert file["notes"] == ["Ollama says it otherwise."]
    assert "llama-server" in panel.as_html()


def dynamic_report(**changed: Any) -> DynamicReport:
    near = Divergence(0.011, 0.2, 0.5, 0.97, 900)
    values: dict[str, Any] = {
        "name": "dynamic-Q4_K_M",
        "limit": 500_000,
        "bytes": 490_000,
        "weights": 800_000,
        "dynamic": near,
        "stock_name": "Q4_K_M",
        "stock_bytes": 495_000,
        "stock": Divergence(0.017, 0.3, 0.8, 0.96, 900),
        "uses_dynamic": True,
        "calibration_tokens": 3600,
        "corrections": {},
        "tensors": [
            Choice("token_embd.weight", (512, 256), "Q6_K", 107520, "Q6_K", {"Q6_K": 1e-4}),
            Choice("blk.0.ffn_up.weight", (512, 256), "Q4_K", 73728, "Q5_K", {"Q4_K": 2e-4}),
        ],
    }
    return DynamicReport(**{**values, **changed})


def test_a_dynamic_file_comes_with_its_mix_and_what_was_measured(fake_run: Any) -> None:
    panel = TakeAwayPanel(Recipe().with_values({"export.gguf_quantization": ["dynamic"]}))
    panel.studio.run = fake_run
    folder = fake_run.path / "export" / "gguf"
    folder.mkdir(parents=True)
    (folder / "fake-dynamic-Q4_K_M.gguf").write_text("GGUF")
    dynamic_report().save(folder / "fake-dynamic-Q4_K_M.json")
    panel.save(["gguf"])
    (part,) = panel.files[0]["parts"]
    mix = part["mix"]
    assert (part["title"], mix["used"], mix["bits"]) == ("DYNAMIC", True, 4.9)
    assert [row["name"] for row in mix["measured"]] == ["dynamic-Q4_K_M", "Q4_K_M"]
    assert mix["measured"][1]["percentile_99_9"] == 0.8
    assert mix["gain"] == pytest.approx(0.353, abs=1e-3)
    embedding, up = mix["tensors"]
    assert (embedding["layer"], embedding["role"]) == (-1, "token_embd")
    assert (up["layer"], up["role"], up["type"], up["stock"]) == (0, "ffn_up", "Q4_K", "Q5_K")
    assert up["error"] == 2e-4
    json.dumps(mix)  # it is a trait
    for text in (panel.as_text(), panel.as_html()):
        assert "mean divergence 1.10e-02 nats" in text


def test_where_llama_cpps_mix_was_as_close_that_file_is_shown(fake_run: Any) -> None:
    folder = fake_run.path / "export" / "gguf"
    folder.mkdir(parents=True)
    (folder / "fake-Q4_K_M.gguf").write_text("GGUF")
    (folder / "fake-Q8_0.gguf").write_text("of an earlier time")
    report = dynamic_report(uses_dynamic=False)
    report.save(folder / "fake-dynamic-Q4_K_M.json")
    notes = (report.summary, "Ollama says it otherwise.")
    fake_run.log.append(ExportEvent(format="gguf", path="gguf", bytes=4, notes=notes))
    assert written_form("gguf", folder, fake_run, ["dynamic"])["notes"] == [notes[1]]
    (part,) = written_form("gguf", folder, fake_run, ["dynamic"])["parts"]
    assert part["size"] == "4 B"
    assert part["mix"]["used"] is False
    (folder / "fake-dynamic-Q4_K_M.json").write_text("{}")
    (folder / "fake-dynamic-Q4_K_M.gguf").write_text("GGUF of a report that is gone")
    (part,) = written_form("gguf", folder, fake_run, ["dynamic"])["parts"]
    assert part["mix"] == {}
    both = written_form("gguf", folder, fake_run, ["q4_k_m", "dynamic"])["parts"]
    assert [part["title"] for part in both] == ["Q4_K_M", "DYNAMIC"]  # not that file twice


def test_while_a_mix_is_measured_its_passes_are_told_and_can_be_stopped(
    fake_run: Any, eventually: Any
) -> None:
    def export(formats: Any, *, measuring: Any, stop: threading.Event, **_: Any) -> Any:
        measuring(Pass("Trying every type", 2, 4, 0, 40))
        measuring(Pass("Trying every type", 2, 4, 40, 40, 0.0))
        time.sleep(1.2 * SHORTEST)
        measuring(Pass("Comparing", 4, 4, 10, 40, 95.0))
        while not stop.is_set():
            time.sleep(0.01)
        raise Cancelled("Saving was stopped.", "nothing was kept.", "begin again.")

    fake_run.export = export
    panel = TakeAwayPanel(run=fake_run)
    shown: list[Any] = []
    panel.observe(lambda change: shown.append(change["new"]), "progress")
    panel.handle({"type": "save"})
    eventually(lambda: len(shown) == 3)
    assert shown[0] == {"text": "Trying every type (2 of 4)", "done": 0, "total": 40}
    assert shown[1]["text"] == "Trying every type (2 of 4)"
    assert shown[2]["text"] == "Comparing (4 of 4), about 1 min 35 s left in it"
    panel.handle({"type": "stop"})
    eventually(lambda: not panel.working)
    assert panel.summary == "Saving was stopped. Nothing was kept."


def test_gguf_without_a_type_is_refused_before_anything_is_written(fake_run: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "set", "path": "export.gguf_quantization", "value": []})
    with pytest.raises(RecipeInvalid, match="as GGUF"):
        panel.save(["adapter", "gguf"])
    assert not (fake_run.path / "export").exists()


def test_without_the_check_nothing_is_loaded_again(fake_run: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.check = False
    panel.save()
    assert panel.files[0]["verified"] == {}
    assert "verify" not in panel.code_now()["python"] + panel.code_now()["shell"]


def test_saving_nothing_is_refused(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "set", "path": "export.formats", "value": []})
    panel.handle({"type": "save"})
    eventually(lambda: panel.error.get("what") == "There is nothing to save." and not panel.working)


def test_stop_is_no_error(fake_run: Any, eventually: Any) -> None:
    def export(formats: Any, *, progress: Any, stop: threading.Event, **_: Any) -> Any:
        progress("adapter", 1, 10)
        while not stop.is_set():
            time.sleep(0.01)
        raise Cancelled("Saving was stopped.", "nothing was kept.", "begin again.")

    fake_run.export = export
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "save"})
    eventually(lambda: panel.progress.get("total") == 10)
    assert panel.working == "save"
    panel.handle({"type": "save"})  # a second click does nothing
    panel.handle({"type": "stop"})
    eventually(lambda: not panel.working)
    assert panel.error == {}
    assert panel.summary == "Saving was stopped. Nothing was kept."


def test_an_upload_says_where_it_is(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "upload", "repo": " me/pirate ", "token": TOKEN})
    eventually(lambda: panel.page)
    assert panel.page == "https://hub/me/pirate"
    assert fake_run.uploads == [("me/pirate", TOKEN, True)]
    assert panel.token_from == "memory"
    assert 'run.upload("me/pirate")' in panel.code_now()["python"]
    assert "--hub me/pirate" in panel.code_now()["shell"]
    panel.private = False
    panel.upload("me/other", private=False)
    assert fake_run.uploads[-1] == ("me/other", TOKEN, False)
    assert "--replace" not in panel.code_now()["shell"]
    panel.replace = True
    assert panel.code_now()["python"].count("replace=True") == 1
    assert "--hub me/other --public --replace" in panel.code_now()["shell"]
    panel.handle({"type": "forget"})
    assert panel.token_from == ""


@pytest.mark.parametrize("fails", [False, True])
def test_a_token_is_in_no_state_page_or_file(fake_run: Any, eventually: Any, fails: bool) -> None:
    if fails:

        def refuse(*_: Any, **__: Any) -> None:
            raise HubTokenRefused("The hub does not know you.", "no.", "make a token.")

        fake_run.upload = refuse
    panel = TakeAwayPanel(Recipe(), run=fake_run)
    panel.handle({"type": "upload", "repo": "me/pirate", "token": TOKEN})
    eventually(lambda: (panel.error if fails else panel.page) and not panel.working)
    assert panel.token_from == ("" if fails else "memory")  # a wrong one is not kept
    state = {name: repr(value) for name, value in panel.get_state().items()}
    data, metadata = panel._repr_mimebundle_()
    everything = json.dumps([state, repr(data), repr(metadata), panel.as_text(), panel.as_html()])
    assert TOKEN not in everything
    assert TOKEN not in repr(panel) + repr(panel.trait_values())
    for file in fake_run.path.parent.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()
