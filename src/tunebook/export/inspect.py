"""Look into a model file or an adapter folder: metadata, tensors by type, sizes, chat template.

Reads headers and small JSON files only, so that any size opens at once; imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunebook.errors import FileInvalid
from tunebook.export.describing import (
    Entry,
    adapter_facts,
    entries,
    gguf_facts,
    kind_of,
    model_facts,
)
from tunebook.export.gguf_header import read_gguf
from tunebook.export.headers import Tensor, read_safetensors
from tunebook.words import bytes_text, count_text

Kind = Literal["gguf", "adapter", "model", "weights"]
_LARGEST_JSON = 32 * 2**20  # bytes; no configuration is larger
_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class TypeShare:
    """All tensors of one type together."""

    type: str
    tensors: int
    parameters: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits a parameter takes."""
        return 8 * self.bytes / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class Inspection:
    """What a model file or adapter folder says of itself.

    Example:
        >>> seen = inspect_file("model.Q4_K_M.gguf")  # doctest: +SKIP
        >>> print(seen)  # doctest: +SKIP
    """

    path: str
    kind: Kind
    title: str
    format: str
    bytes: int
    facts: tuple[tuple[str, str], ...] = ()
    metadata: tuple[Entry, ...] = ()
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)
    chat_template: str = field(default="", repr=False)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def types(self) -> tuple[TypeShare, ...]:
        """The tensors by type, the type with most bytes first."""
        groups: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.type, []).append(tensor)
        shares = [
            TypeShare(name, len(group), sum(t.elements for t in group), sum(t.bytes for t in group))
            for name, group in groups.items()
        ]
        return tuple(sorted(shares, key=lambda share: (-share.bytes, share.type)))

    def to_dict(self, *, most_tensors: int | None = None) -> dict[str, Any]:
        """All of it as plain data, for `--json` and for the view in JupyterLab.

        Args:
            most_tensors: list no more than these; the sums count all.
        """
        shown = self.tensors[:most_tensors]
        return {
            "path": self.path,
            "kind": self.kind,
            "title": self.title,
            "format": self.format,
            "bytes": self.bytes,
            "parameters": self.parameters,
            "facts": [list(fact) for fact in self.facts],
            "metadata": [asdict(entry) for entry in self.metadata],
            "types": [{**asdict(share), "bits": round(share.bits, 3)} for share in self.types],
            "tensor_count": len(self.tensors),
            "tensors": [{**asdict(tensor), "shape": list(tensor.shape)} for tensor in shown],
            "chat_template": self.chat_template,
        }

    def __str__(self) -> str:
        lines = [f"{self.title} · {self.format} · {bytes_text(self.bytes)}"]
        lines += [f"  {label}: {text}" for label, text in self.facts]
        for share in self.types:
            lines.append(
                f"  {share.type:<8} {share.tensors:>5} tensors  {count_text(share.parameters):>7} "
                f"parameters  {bytes_text(share.bytes):>10}  {share.bits:.2f} bits each"
            )
        return "\n".join(lines)


def inspect_file(path: Path | str) -> Inspection:
    """Look into a `.gguf` or `.safetensors` file, an adapter folder, or a folder of weights.

    Raises:
        FileInvalid: there is nothing there that can be inspected, or it is damaged.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise FileInvalid(
                f"There is no file {path.name!r}.",
                f"{path} does not exist, or is not a file or folder.",
                "check the name; in JupyterLab refresh the file browser.",
            )
        read = _READERS.get(path.suffix.lower())
        if read is None:
            raise _nothing(
                path, f"its name ends in {path.suffix}" if path.suffix else "its name has no ending"
            )
        return read(path)
    except OSError as error:
        raise FileInvalid(
            f"{path.name} cannot be read.",
            f"{error.strerror or error}.",
            "check that the file is still there and that you may read it.",
        ) from error


def _gguf(path: Path) -> Inspection:
    header = read_gguf(path)
    values = header.values
    template = values.get(_TEMPLATE, "")
    return Inspection(
        str(path),
        "gguf",
        str(values.get("general.name") or path.stem),
        header.format,
        path.stat().st_size,
        tuple(gguf_facts(header)),
        entries((k, header.types[k], v) for k, v in values.items() if k != _TEMPLATE),
        tuple(header.tensors),
        template if isinstance(template, str) else "",
    )


def _safetensors(path: Path) -> Inspection:
    header = read_safetensors(path)
    return Inspection(
        str(path),
        "weights",
        path.stem,
        header.format,
        path.stat().st_size,
        (("Parameters", count_text(sum(tensor.elements for tensor in header.tensors))),),
        entries((key, header.types[key], value) for key, value in header.values.items()),
        tuple(header.tensors),
    )


_READERS: dict[str, Callable[[Path], Inspection]] = {".gguf": _gguf, ".safetensors": _safetensors}


def _folder(path: Path) -> Inspection:
    """An adapter folder, or a folder of weights with their `config.json`."""
    adapter = (path / "adapter_config.json").is_file()
    config = path / ("adapter_config.json" if adapter else "config.json")
    weights = sorted(path.glob("adapter_model*.safetensors" if adapter else "*.safetensors"))
    if not adapter and not weights:
        raise _nothing(path, "it holds neither an adapter_config.json nor a .safetensors file")
    if not weights:
        raise FileInvalid(
            f"The adapter in {path.name} has no weights that can be read.",
            "there is no adapter_model.safetensors; pickled weights (.bin) are never loaded.",
            "save the adapter again with `save_pretrained(folder)`, which writes safetensors.",
        )
    settings = _json(config) if config.is_file() else {}
    tensors = [tensor for file in weights for tensor in read_safetensors(file).tensors]
    facts = adapter_facts(settings, tensors) if adapter else model_facts(settings, tensors)
    return Inspection(
        str(path),
        "adapter" if adapter else "model",
        path.resolve().name,
        f"{len(weights)} safetensors files" if len(weights) > 1 else "safetensors",
        sum(file.stat().st_size for file in weights),
        tuple(facts),
        entries((key, kind_of(value), value) for key, value in settings.items()),
        tuple(tensors),
        _folder_template(path),
    )


def _folder_template(path: Path) -> str:
    """The chat template beside the weights: a file of its own, or in the tokenizer's settings."""
    own, settings = path / "chat_template.jinja", path / "tokenizer_config.json"
    if own.is_file() and own.stat().st_size <= _LARGEST_JSON:
        return own.read_text(encoding="utf-8", errors="replace")
    template = _json(settings).get("chat_template", "") if settings.is_file() else ""
    return template if isinstance(template, str) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has {bytes_text(path.stat().st_size)}")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise FileInvalid(
            f"{path.name} in {path.parent.name} cannot be read.",
            f"{error}.",
            "download or save the folder again.",
        ) from error
    return value


def _nothing(path: Path, why: str) -> FileInvalid:
    return FileInvalid(
        f"There is nothing to inspect in {path.name}.",
        f"{why}.",
        "choose a .gguf or .safetensors file, an adapter folder, or a folder of weights.",
    )
