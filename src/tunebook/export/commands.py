"""The lines that load or serve what was written. Only lines that work are shown.

Knows names and paths; loads nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from tunebook.models.catalog import find
from tunebook.recipe import Recipe

Lines = list[tuple[str, str]]
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
_VLLM, _LLAMA_CPP = 8000, 8080  # ports on which they listen unless told otherwise
_TYPE = re.compile(r"(?i)(?:^|[-_.])(i?q\d\w*|b?f16|f32)$")


def usage(form: str, place: str, recipe: Recipe, *, files: list[str] | None = None) -> Lines:
    """Titles and code for a form of a model.

    Args:
        form: a name of `FORMATS`, or what `form_of` says.
        place: its folder or file, or its name on the hub.
        recipe: names the base model.
        files: the names of the files there, if it is on the hub; None looks into the folder.
    """
    if form == "adapter":
        return _adapter(place, recipe, takes_pictures(place, files))
    if "gguf" in form or place.endswith(".gguf"):
        return _gguf(place) if files is None else _gguf_on_the_hub(place, files)
    return _whole(place, takes_pictures(place, files))


def takes_pictures(place: str, files: Iterable[str] | None = None) -> bool:
    """Whether what was saved takes pictures: its processor lies beside it.

    Args:
        files: of a repository; None looks into the folder.
    """
    names = [file.name for file in Path(place).glob("*")] if files is None else list(files)
    return any(name in names for name in ("processor_config.json", "preprocessor_config.json"))


def form_of(folder: Path) -> str:
    """What a folder holds: `adapter`, `gguf`, `merged_4bit` or `merged_16bit`."""
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if any(folder.glob("*.gguf")):
        return "gguf"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    return "merged_4bit" if config.get("quantization_config") else "merged_16bit"


def _adapter(place: str, recipe: Recipe, seeing: bool) -> Lines:
    quoted = json.dumps(place, ensure_ascii=False)
    face = "FastVisionModel" if seeing else "FastLanguageModel"
    words = "processor" if seeing else "tokenizer"
    lines = [
        (
            "Tunebook",
            f"from tunebook import {face}\n\nmodel, {words} = {face}.from_pretrained({quoted})",
        )
    ]
    base = _base(recipe)
    if base is None:  # only Tunebook finds the model that ships inside it
        return lines
    peft = (
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({quoted})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({quoted})"
    )
    if seeing:
        peft = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f"model = AutoModelForImageTextToText.from_pretrained({json.dumps(base)})\n"
            f"model = PeftModel.from_pretrained(model, {quoted})\n"
            f"processor = AutoProcessor.from_pretrained({quoted})"
        )
    lines.append(("PEFT", peft))
    if rank := next((size for size in _RANKS if size >= recipe.lora.r), None):
        name = Path(place).parent.parent.name or "tuned"
        vllm = (
            f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {rank} \\\n"
            f"  --lora-modules {shlex.quote(f'{name}={place}')}"
        )
        lines += [("vLLM, as a server", vllm), _open_webui(_VLLM)]
    return lines


def _whole(place: str, seeing: bool) -> Lines:
    quoted = json.dumps(place, ensure_ascii=False)
    face = "AutoModelForImageTextToText" if seeing else "AutoModelForCausalLM"
    words = "AutoProcessor" if seeing else "AutoTokenizer"
    return [
        (
            "transformers",
            f"from transformers import {face}, {words}\n\n"
            f"model = {face}.from_pretrained({quoted})\n"
            f"{'processor' if seeing else 'tokenizer'} = {words}.from_pretrained({quoted})",
        ),
        ("vLLM, as a server", f"vllm serve {shlex.quote(place)}"),
        _open_webui(_VLLM),
    ]


def _gguf(place: str) -> Lines:
    """Of a file on this machine, or of the first in a folder."""
    path = Path(place)
    file = path if path.suffix == ".gguf" else next(iter(sorted(path.glob("*.gguf"))), None)
    if file is None:
        return []
    quoted, name = shlex.quote(str(file)), _plain_name(file)
    lines = [
        ("llama.cpp, as a server", f"llama-server -m {quoted} --jinja --port {_LLAMA_CPP}"),
        ("llama.cpp, in the terminal", f"llama-cli -m {quoted} --jinja"),
    ]
    recipe = file.parent / "Modelfile"
    if recipe.is_file():
        made = f"ollama create {name} -f {shlex.quote(str(recipe))}\nollama run {name}"
        if f"FROM ./{file.name}\n" not in recipe.read_text(encoding="utf-8"):
            made = f"# first, in the Modelfile: FROM ./{file.name}\n{made}"
        lines.append(("Ollama", made))
    lines += [
        ("LM Studio", f"lms import --copy {quoted}\nlms server start"),
        _open_webui(_LLAMA_CPP),
    ]
    return lines


def _gguf_on_the_hub(repo: str, files: list[str]) -> Lines:
    first = next((name for name in files if name.endswith(".gguf")), "")
    found = _TYPE.search(first.removesuffix(".gguf"))
    tagged = shlex.quote(f"{repo}:{found[1].upper()}" if found else repo)
    return [
        ("llama.cpp, as a server", f"llama-server -hf {tagged} --jinja --port {_LLAMA_CPP}"),
        ("Ollama", f"ollama run hf.co/{tagged}"),
        ("LM Studio", f"lms get https://huggingface.co/{shlex.quote(repo)}"),
        _open_webui(_LLAMA_CPP),
    ]


def _open_webui(port: int) -> tuple[str, str]:
    """Beside a server that speaks as OpenAI's does."""
    address = f"http://localhost:{port}/v1"
    lines = f"OPENAI_API_BASE_URL={address} OPENAI_API_KEY=none \\\n  open-webui serve --port 3000"
    return "Open WebUI, beside that server", lines


def _plain_name(file: Path) -> str:
    """A name that Ollama takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._") or "tuned"


def _base(recipe: Recipe) -> str | None:
    """What other programs call the base model; None for the one inside the package."""
    entry = find(recipe.model.name)
    if entry is None:
        return recipe.model.name
    return None if entry.embedded else entry.hub_id
