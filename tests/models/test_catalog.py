"""The catalogue agrees with what the makers published, and names are found."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tunebook.models.catalog import EMBEDDED_FOLDER, catalog_entries, find, suggest

PUBLISHED = [entry for entry in catalog_entries() if not entry.embedded]


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_counted_parameters_agree_with_the_published_number(entry):
    assert entry.shape.total_parameters() == pytest.approx(entry.parameters, rel=0.01)
    assert entry.hub_id
    assert entry.licence
    assert entry.shape.max_position_embeddings >= entry.context


def test_names_and_hub_ids_are_unique():
    names = [entry.name.lower() for entry in catalog_entries()]
    hub_ids = [entry.hub_id.lower() for entry in PUBLISHED]
    assert len(set(names)) == len(names)
    assert len(set(hub_ids)) == len(hub_ids)


@pytest.mark.parametrize("name", ["llama-3.2-1b-instruct", "META-LLAMA/Llama-3.2-1B-Instruct"])
def test_find_ignores_case_and_knows_hub_ids(name):
    entry = find(name)
    assert entry is not None
    assert entry.name == "Llama-3.2-1B-Instruct"


def test_find_gives_none_for_the_unknown():
    assert find("no-such-model") is None


def test_suggest_puts_the_closest_first():
    assert suggest("llama 3.2 1b")[0] == "Llama-3.2-1B-Instruct"
    assert suggest("Qwen3-0.5B")[0] in ("Qwen3-0.6B", "Qwen2.5-0.5B-Instruct")
    assert suggest("zzzzzz") == []


@pytest.mark.skipif(
    not (EMBEDDED_FOLDER / "config.json").is_file(), reason="embedded model not built"
)
def test_embedded_entry_has_the_shape_of_the_shipped_config():
    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text())
    entry = find("tunebook-tiny")
    assert entry is not None
    assert entry.embedded
    assert entry.shape.hidden_size == config["hidden_size"]
    assert entry.parameters == entry.shape.total_parameters()


def test_catalogue_and_shapes_need_no_torch():
    code = (
        "import sys; from tunebook.models.catalog import CATALOG; assert len(CATALOG) > 20;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
