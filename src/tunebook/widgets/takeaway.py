"""The take-away panel: write the adapter or a whole model, and say how to load it again.

Knows a run's `export` and nothing of file formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.errors import RecipeInvalid, RunBusy, RunMissing
from tunebook.recipe import Recipe
from tunebook.widgets._code import literal
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import bytes_text


class TakeAwayPanel(Panel):
    """Save what was learned.

    Args:
        run: the run to save; None takes the studio's, once there is one.
    """

    module = "takeaway"
    purpose = "takeaway"
    parts = ("export",)

    folder = t.Unicode(help="Where to; empty: inside the run's folder.").tag(sync=True)
    ready = t.Bool(False, help="Whether there is something to save.").tag(sync=True)
    files: t.List[Any] = t.List(help="What was written: path, bytes, kind, code.").tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        run: Any = None,
        studio: Studio | None = None,
        **traits: Any,
    ):
        traits.setdefault("heading", "Take away")
        traits.setdefault("lead", "Save what was learned, to use it anywhere.")
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._run_changed, "run")
        if run is not None:
            self.studio.run = run
        self._run_changed()

    def save(
        self, formats: list[str] | None = None, *, folder: str | Path | None = None
    ) -> list[Path]:
        """Write the chosen formats and show what was written.

        Raises:
            RunMissing: nothing has been trained yet.
            RunBusy: training goes on.
        """
        run = self._finished_run()
        chosen = list(self.recipe.export.formats) if formats is None else formats
        if not chosen:
            raise RecipeInvalid(
                "There is nothing to save.", "no format is ticked.", "tick Adapter or Merged first."
            )
        target = None if folder is None and not self.folder else Path(folder or self.folder)
        paths = [Path(path) for path in run.export(chosen, folder=target)]
        self.show(files=[_file(path) for path in paths], summary=_saved(paths))
        return paths

    def do_save(self, folder: str = "") -> None:
        """The Save button."""
        self.show(folder=folder.strip())
        self._finished_run()
        self.work(self.save, during="save the model", busy="Saving …")

    def text_lines(self) -> list[str]:
        """What was written and where."""
        return [self.summary, *(f"  {item['path']} ({item['size']})" for item in self.files)]

    def _finished_run(self) -> Any:
        run = self.studio.run
        if run is None:
            raise RunMissing(
                "There is nothing to save yet.",
                "no model has been trained in this notebook.",
                "train one in the Train step first, or pass `run=tunebook.open_run(folder)`.",
            )
        if run.alive:
            raise RunBusy(
                "The model cannot be saved now.",
                "training still goes on and changes the weights.",
                "wait for the end, or stop the run: what it learned until then is kept.",
            )
        return run

    def _run_changed(self, _change: object = None) -> None:
        run = self.studio.run
        summary = "Nothing trained yet" if run is None else f"Ready to save {run.name}"
        self.show(ready=run is not None, files=[], summary=summary)
        self.refresh_code()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else 0


def _file(path: Path) -> dict[str, Any]:
    kind = "adapter" if (path / "adapter_config.json").is_file() else "merged_16bit"
    return {
        "path": str(path),
        "size": bytes_text(size_of(path)),
        "kind": "Adapter" if kind == "adapter" else "Merged model, 16 bit",
        "code": _loading_code(path, kind),
    }


def _loading_code(path: Path, kind: str) -> str:
    if kind == "adapter":
        return (  # finds the base model too, also the one that ships inside
            "from tunebook import FastLanguageModel\n\n"
            f"model, tokenizer = FastLanguageModel.from_pretrained({literal(str(path))})"
        )
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({literal(str(path))})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({literal(str(path))})"
    )


def _saved(paths: list[Path]) -> str:
    return "Saved " + " and ".join(path.name for path in paths)
