"""The Recipe: its file, its flat names, its errors, and the forms made from its fields."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, strategies as st

from tunebook.errors import RecipeInvalid, SourceMissing
from tunebook.fields import recipe_fields
from tunebook.recipe import PARTS, Recipe, resolve_field, write_atomic


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_recipe_survives_its_file(tmp_path: Path, suffix: str) -> None:
    recipe = Recipe.of("some/model", "rows.jsonl", r=8, max_steps=20, target_modules=["q_proj"])
    path = recipe.save(tmp_path / f"recipe.{suffix}")
    assert Recipe.load(path) == recipe


@given(
    r=st.integers(1, 1024),
    rate=st.floats(1e-8, 1.0, allow_nan=False),
    fraction=st.floats(0, 0.5),
    source=st.text(min_size=1, max_size=30),
)
def test_any_valid_recipe_survives_yaml(r: int, rate: float, fraction: float, source: str) -> None:
    recipe = Recipe.of(data=source, r=r, learning_rate=rate, eval_fraction=fraction)
    text = yaml.safe_dump(recipe.model_dump(mode="json"))
    assert Recipe.parse(yaml.safe_load(text)) == recipe


def test_flat_and_dotted_names_mean_the_same() -> None:
    assert Recipe.of(r=8) == Recipe.of(**{"lora.r": 8})
    assert Recipe.of(name="x").name == "x"
    assert resolve_field("lora.r") == resolve_field("r") == ("lora", "r")


def test_a_wrong_value_names_the_field_the_value_and_the_range() -> None:
    with pytest.raises(RecipeInvalid) as caught:
        Recipe.of(r=0)
    assert "lora.r" in caught.value.why
    assert "0" in caught.value.why
    assert "lora.r" in caught.value.do


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(RecipeInvalid) as caught:
        Recipe.parse({"lora": {"r": 0, "dropout": 2}, "training": {"learning_rate": -1}})
    assert all(
        name in caught.value.why for name in ("lora.r", "lora.dropout", "training.learning_rate")
    )


def test_a_misspelt_field_gets_a_suggestion() -> None:
    with pytest.raises(RecipeInvalid, match="learning_rate"):
        Recipe.of(learning_rat=1e-4)


def test_a_field_that_does_not_exist_is_refused_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("lora:\n  rank: 8\n")
    with pytest.raises(RecipeInvalid, match=r"lora\.rank"):
        Recipe.load(path)


def test_a_file_that_is_no_yaml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("lora: [1,\n  r: 8\n")
    with pytest.raises(RecipeInvalid, match="line"):
        Recipe.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"nothing\.yaml"):
        Recipe.load(tmp_path / "nothing.yaml")


def test_assigning_a_bad_value_is_refused() -> None:
    recipe = Recipe()
    with pytest.raises(ValueError, match="greater than or equal"):
        recipe.lora.r = 0


def test_every_field_teaches() -> None:
    for field in recipe_fields():
        assert field.title, field.path
        assert len(field.description) >= 20, field.path
        assert field.description.rstrip().endswith("."), field.path


def test_the_form_gives_defaults_that_the_recipe_accepts() -> None:
    defaults = {field.path: field.default for field in recipe_fields()}
    assert Recipe().with_values(defaults) == Recipe()


def test_every_part_is_in_the_form() -> None:
    assert {field.path.split(".")[0] for field in recipe_fields()} == set(PARTS)


def test_the_docs_are_made_from_the_fields(project_root: Path) -> None:
    made = runpy.run_path(str(project_root / "docs" / "generate.py"))
    assert (project_root / "docs" / "recipe.md").read_text() == made["recipe_page"]()
    schema = (project_root / "docs" / "recipe.schema.json").read_text()
    assert json.loads(schema) == json.loads(made["schema_file"]())


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    Recipe.of(r=8).save(path)
    before = path.read_text()
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800 cannot be encoded")
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
