"""The catalogue: well-known models, with size, licence, context and shape, for choosing offline.

The table is `catalog.json` beside this file; nothing here reaches a network or loads a model.
"""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunebook.models.shape import ModelShape

_HERE = Path(__file__).resolve().parent
EMBEDDED_FOLDER = _HERE / "embedded"
EMBEDDED_NAME = "tunebook-tiny"

CATALOG: list[CatalogEntry]
"""All entries, the embedded model first; built when first used."""


class CatalogEntry(BaseModel):
    """One model that can be chosen by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: str
    title: str
    parameters: int = Field(description="As published, a tied embedding counted once.")
    licence: str = Field(description="The hub's identifier of the licence.")
    context: int = Field(description="Tokens the model was made for.")
    hub_id: str | None = None
    embedded: bool = False
    template: str | None = Field(default=None, description="Name of its chat template.")
    languages: list[str] = Field(
        default_factory=list, description="ISO 639-1 codes, the main ones."
    )
    modality: list[str] = Field(
        default=["text"], description="What it takes in: text, image; it always gives text."
    )
    shape: ModelShape


@functools.cache
def _published() -> tuple[CatalogEntry, ...]:
    table = json.loads((_HERE / "catalog.json").read_text(encoding="utf-8"))
    return tuple(CatalogEntry.model_validate(row) for row in table)


def _embedded() -> list[CatalogEntry]:
    """The model that ships inside; its sizes are read from its own config."""
    path = EMBEDDED_FOLDER / "config.json"
    if not path.is_file():
        return []
    shape = ModelShape.from_config(json.loads(path.read_text(encoding="utf-8")))
    entry = CatalogEntry(
        name=EMBEDDED_NAME,
        family="tunebook",
        title="Tunebook tiny (ships inside, runs on any CPU)",
        parameters=shape.total_parameters(),
        licence="apache-2.0",
        context=shape.max_position_embeddings,
        embedded=True,
        languages=["en"],
        shape=shape,
    )
    return [entry]


def catalog_entries() -> list[CatalogEntry]:
    """All entries, the embedded model first."""
    return [*_embedded(), *_published()]


def find(name: str) -> CatalogEntry | None:
    """The entry of that name or hub id, in any case; None if there is none."""
    wanted = name.strip().lower()
    for entry in catalog_entries():
        if wanted and wanted in (entry.name.lower(), (entry.hub_id or "").lower()):
            return entry
    return None


def suggest(name: str) -> list[str]:
    """Up to three names of the catalogue that are close to `name`, the closest first."""
    by_lower: dict[str, str] = {}
    for entry in catalog_entries():
        for known in (entry.name, entry.hub_id):
            if known:
                by_lower[known.lower()] = entry.name
    close = difflib.get_close_matches(name.strip().lower(), by_lower, n=6, cutoff=0.5)
    return list(dict.fromkeys(by_lower[item] for item in close))[:3]


def __getattr__(name: str) -> Any:
    if name != "CATALOG":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return catalog_entries()
