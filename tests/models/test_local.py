"""Models on this disk are found, and what only looks like one is not."""

from __future__ import annotations

import json

from tunebook.models.local import find_local


def make(folder, *, weights="model.safetensors", **config) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if weights:
        (folder / weights).write_bytes(b"")


def test_folders_with_config_and_weights_are_models(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    make(tmp_path / "mine", hidden_size=8)
    make(tmp_path / "runs" / "first" / "export" / "merged_16bit")
    make(tmp_path / ".hidden" / "model")
    make(tmp_path / "no-weights", weights="")
    make(tmp_path / "adapter", weights="adapter_model.safetensors")
    make(tmp_path / "a" / "b" / "c" / "d" / "too-deep")
    make(tmp_path / "env" / "model")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    found = find_local(tmp_path)
    assert [model.name for model in found] == ["./mine", "./runs/first/export/merged_16bit"]
    assert found[0].source == "folder"
    assert found[0].config["hidden_size"] == 8


def test_the_cache_of_the_hub_gives_ids(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    make(cache / "models--some--model" / "snapshots" / "abc")
    make(cache / "models--only--config" / "snapshots" / "abc", weights="")
    broken = cache / "models--some--broken" / "snapshots" / "abc"
    make(broken)
    (broken / "config.json").write_text("{")
    (tmp_path / "here").mkdir()
    found = find_local(tmp_path / "here")
    assert [(model.name, model.source) for model in found] == [("some/model", "cache")]


def test_no_more_than_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    for at in range(5):
        make(tmp_path / f"model-{at}")
    assert len(find_local(tmp_path, most=3)) == 3
