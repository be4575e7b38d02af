"""Uploads to a stand-in of the hub: what arrives, what is refused and how, and where no token stays."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_stand_in import GOOD_TOKEN, Hub

from tunebook.errors import (
    Cancelled,
    HubNameTaken,
    HubRefused,
    HubUnreachable,
    RecipeInvalid,
    TunebookError,
)
from tunebook.export import Progress, upload
from tunebook.export.card import Curve, model_card, portable_recipe
from tunebook.recipe import Recipe


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A small folder that looks like an adapter, with a recipe that names a file of this machine."""
    data = tmp_path / "secret folder" / "rows.jsonl"
    data.parent.mkdir()
    data.write_text("{}")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"w" * 5000)
    (folder / "README.md").write_text("an old card")
    Recipe.of(model="Qwen2.5-0.5B-Instruct", data=str(data)).save(folder / "recipe.yaml")
    return folder


def test_an_upload_is_one_commit_with_weights_card_and_recipe(hub: Hub, adapter: Path) -> None:
    told: list[tuple[int, int]] = []
    page = upload(
        adapter,
        "maria/pirate",
        token=GOOD_TOKEN,
        numbers={"loss": "2.1 → 0.3"},
        progress=Progress(lambda done, total: told.append((done, total))),
        endpoint=hub.url,
    )
    assert page == f"{hub.url}/maria/pirate"
    assert hub.repos == {"maria/pirate": True}
    assert len(hub.commits) == 1
    assert hub.files["adapter_model.safetensors"] == b"w" * 5000
    card = hub.files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert head["license"] == "apache-2.0"
    assert "2.1 → 0.3" in card
    assert "rows.jsonl" in card
    everything = b"".join(hub.files.values())
    assert b"secret folder" not in everything
    assert GOOD_TOKEN.encode() not in everything
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 5000


def test_a_name_alone_and_public(hub: Hub, adapter: Path) -> None:
    upload(adapter, "pirate", token=GOOD_TOKEN, private=False, endpoint=hub.url)
    assert hub.repos == {"me/pirate": False}


@pytest.mark.parametrize(
    ("place", "status", "kind", "said"),
    [
        ("/api/repos/create", 403, HubRefused, "may not write to maria"),
        ("/preupload/", 404, HubRefused, "no place for maria/pirate"),
        ("/api/repos/create", 400, HubRefused, "refused with 400"),
        ("/commit/", 500, HubUnreachable, "answered 500"),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, adapter: Path, place: str, status: int, kind: type[TunebookError], said: str
) -> None:
    hub.fail[place] = status
    with pytest.raises(kind, match=said) as caught:
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert caught.value.do


@pytest.mark.parametrize("token", [None, "hf_wrongwrongwrongwrong"])
def test_no_token_and_a_wrong_one_are_the_same_advice(
    hub: Hub, adapter: Path, token: str | None
) -> None:
    with pytest.raises(HubRefused, match="does not know you") as caught:
        upload(adapter, "maria/pirate", token=token, endpoint=hub.url)
    assert "settings/tokens" in caught.value.do
    error: BaseException | None = caught.value
    while error is not None:  # a traceback would show the whole chain
        assert token is None or token not in str(error)
        error = error.__cause__


def test_without_a_network_the_hub_is_unreachable(hub: Hub, adapter: Path) -> None:
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint="http://127.0.0.1:9")


def test_a_stop_commits_nothing(hub: Hub, adapter: Path) -> None:
    stop = threading.Event()
    progress = Progress(lambda done, _: stop.set() if done else None, stop, what="The upload")
    with pytest.raises(Cancelled, match="upload was stopped"):
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, progress=progress, endpoint=hub.url)
    assert hub.commits == []


@pytest.mark.parametrize("name", ["", "a/b/c", "sp ace", "-x-", "a..b"])
def test_names_that_no_repository_can_have(adapter: Path, name: str) -> None:
    with pytest.raises(RecipeInvalid, match="cannot have a repository"):
        upload(adapter, name, token=GOOD_TOKEN, endpoint="http://127.0.0.1:9")


def test_an_empty_folder_is_nothing_to_upload(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="nothing to upload"):
        upload(tmp_path, "maria/pirate", token=GOOD_TOKEN, endpoint="http://127.0.0.1:9")


def test_a_card_keeps_markup_of_names_as_text_and_names_no_folder(tmp_path: Path) -> None:
    data = tmp_path / "a|b<script>.jsonl"
    data.write_text("")
    recipe = Recipe.of(model="tunebook-tiny", data=str(data))
    card = model_card(recipe, name="maria/x", form="merged_16bit")
    assert "a\\|b&lt;script>.jsonl" in card
    assert str(tmp_path) not in card
    assert "base_model" not in card.split("---")[1]
    assert portable_recipe(recipe).data.source == data.name
    assert json.dumps(portable_recipe(recipe).model_dump()).count(str(tmp_path)) == 0


def test_an_upload_that_broke_off_sends_only_what_is_missing(hub: Hub, adapter: Path) -> None:
    (adapter / "z.safetensors").write_bytes(b"z" * 3000)
    stop = threading.Event()
    progress = Progress(lambda done, _: stop.set() if done > 5000 else None, stop)
    with pytest.raises(Cancelled):
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, progress=progress, endpoint=hub.url)
    assert len(hub.puts) == 1
    assert hub.files == {}
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert len(hub.puts) == len(set(hub.puts)) == 2
    assert hub.files["adapter_model.safetensors"] == b"w" * 5000
    assert hub.files["z.safetensors"] == b"z" * 3000


def test_a_lost_connection_is_taken_up_again(
    hub: Hub, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    oid = hashlib.sha256(b"w" * 5000).hexdigest()
    hub.breaks.append(oid)
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert hub.puts == [oid, oid]
    assert hub.files["adapter_model.safetensors"] == b"w" * 5000


@pytest.mark.parametrize("place", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_busy_hub_is_asked_again_after_the_time_it_says(
    hub: Hub, adapter: Path, place: str
) -> None:
    hub.busy[place] = ["0", "0"]
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert hub.busy[place] == []
    assert len(hub.commits) == 1


def test_a_hub_that_stays_busy_is_given_up_with_advice(hub: Hub, adapter: Path) -> None:
    hub.busy["/commit/"] = ["3600"]
    with pytest.raises(HubUnreachable, match="429") as caught:
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert "not sent again" in caught.value.do


def test_a_stop_ends_the_wait_for_a_busy_hub(hub: Hub, adapter: Path) -> None:
    hub.busy["/commit/"] = ["50"]
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        upload(
            adapter,
            "maria/pirate",
            token=GOOD_TOKEN,
            progress=Progress(stop=stop),
            endpoint=hub.url,
        )
    assert time.monotonic() - began < 20


def test_a_name_that_holds_another_model_is_not_overwritten_unasked(
    hub: Hub, adapter: Path
) -> None:
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)  # the same is no other
    first = hub.files["adapter_model.safetensors"]
    (adapter / "adapter_model.safetensors").write_bytes(b"v" * 5000)
    with pytest.raises(HubNameTaken, match=r"adapter_model\.safetensors") as caught:
        upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    assert "replace=True" in caught.value.do
    assert hub.files["adapter_model.safetensors"] == first
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, replace=True, endpoint=hub.url)
    assert hub.files["adapter_model.safetensors"] == b"v" * 5000


def test_a_merged_model_that_replaces_an_adapter_leaves_nothing_of_it(
    hub: Hub, adapter: Path, tmp_path: Path
) -> None:
    upload(adapter, "maria/pirate", token=GOOD_TOKEN, endpoint=hub.url)
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "config.json").write_text("{}")
    (merged / "model.safetensors").write_bytes(b"m" * 100)
    given: dict[str, Any] = {"token": GOOD_TOKEN, "recipe": Recipe(), "endpoint": hub.url}
    with pytest.raises(HubNameTaken):
        upload(merged, "maria/pirate", **given)
    upload(merged, "maria/pirate", replace=True, **given)
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors", "recipe.yaml"]


def test_gguf_files_gather_in_one_repository_and_leave_a_card_alone(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    for name in ("x-Q4_K_M.gguf", "x-Q8_0.gguf"):
        for old in folder.glob("*.gguf"):
            old.unlink()
        (folder / name).write_bytes(name.encode() * 50)
        given: dict[str, Any] = {"token": GOOD_TOKEN, "recipe": Recipe(), "endpoint": hub.url}
        upload(folder, "maria/pirate-GGUF", **given)
        hub.files["README.md"] += b"\nMine."
    assert {"x-Q4_K_M.gguf", "x-Q8_0.gguf"} <= set(hub.files)
    card = hub.files["README.md"].decode()
    assert card.count("Mine.") == 2
    assert "ollama run hf.co/maria/pirate-GGUF:Q4_K_M" in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "gguf"


def test_a_card_shows_the_loss_and_leaves_out_what_is_not_known() -> None:
    losses = [(step, 4.0 / step) for step in range(1, 201)]
    card = model_card(
        Recipe.of(model="Qwen2.5-0.5B-Instruct"),
        name="maria/x",
        form="merged_16bit",
        numbers={"Data": None},
        curve=Curve(losses, [(100, 0.5)]),
        repeatable=False,
    )
    table = card.split("## Loss")[1].split("## Use")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    steps = [int(cell) for cell in rows if cell.isdigit()]
    assert steps[0] == 1
    assert 200 in steps
    assert len(steps) == 13
    assert "| 100 | 0.5000 |" in table
    assert "Data" not in card
    assert "recipe.yaml" not in card
    assert "vllm serve maria/x" in card
