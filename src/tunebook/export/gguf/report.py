"""What is known of a dynamic mix: which tensor got which type and why, and how good it is.

Knows numbers and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunebook.errors import FileInvalid
from tunebook.export.gguf.divergence import Divergence
from tunebook.export.gguf.mixes import tensor_bytes
from tunebook.recipe import write_atomic
from tunebook.words import bytes_text


@dataclass(frozen=True)
class Choice:
    """The type of one tensor.

    Attributes:
        stock_type: what llama.cpp's mix gives it.
        errors: nats a token that each type was expected to cost.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    stock_type: str | None
    errors: Mapping[str, float]

    @property
    def error(self) -> float:
        """Nats a token that its type was expected to cost."""
        return self.errors[self.type]

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        weights = 1
        for length in self.shape:
            weights *= length
        return 8 * self.bytes / weights

    @property
    def place(self) -> tuple[int, str]:
        """Layer, -1 for a tensor that belongs to none, and what it is for: (3, "ffn_down")."""
        if not self.name.startswith("blk."):
            return -1, self.name.removesuffix(".weight")
        _, layer, role = self.name.split(".", 2)
        return int(layer), role.removesuffix(".weight")

    @property
    def why(self) -> str:
        """What the next smaller and the next larger type would have been."""
        sizes = {kind: tensor_bytes(self.shape, kind) for kind in self.errors}
        smaller = [kind for kind, size in sizes.items() if size < self.bytes]
        larger = [kind for kind, size in sizes.items() if size > self.bytes]
        said = []
        if smaller:
            kind = max(smaller, key=sizes.__getitem__)
            saved = bytes_text(self.bytes - sizes[kind])
            said.append(f"{kind} would save {saved} and cost {self._beside(kind)}")
        if larger:
            kind = min(larger, key=sizes.__getitem__)
            more = bytes_text(sizes[kind] - self.bytes)
            said.append(f"{kind} would take {more} more and cost {self._beside(kind)}")
        return "; ".join(said) + "." if said else "No other type fits its rows."

    def _beside(self, kind: str) -> str:
        """The error of another type beside that of its own."""
        if not self.error:
            return f"{self.errors[kind]:.1e} nats a token"
        times = self.errors[kind] / self.error
        return f"{100 * times:.0f} % as much" if times < 1 else f"{times:.1f} times as much"


@dataclass(frozen=True)
class DynamicReport:
    """A dynamic mix beside llama.cpp's of the same size, both with the same importance.

    Attributes:
        limit: bytes of tensors that were asked for.
        weights: of the model.
        dynamic, stock: measured on held-out text; no `stock` if no mix of llama.cpp is that small.
        uses_dynamic: whether the dynamic mix was better, and is what is written.
        corrections: by class of tensors, what was measured over what was estimated.
    """

    name: str
    limit: int
    bytes: int
    weights: int
    dynamic: Divergence
    stock_name: str | None
    stock_bytes: int | None
    stock: Divergence | None
    uses_dynamic: bool
    calibration_tokens: int
    corrections: Mapping[str, float]
    tensors: list[Choice]

    @property
    def written(self) -> str:
        """The name of the mix that is written: its own, or llama.cpp's where that is as good."""
        return self.name if self.uses_dynamic or self.stock_name is None else self.stock_name

    @property
    def bits(self) -> float:
        """Bits a weight, of everything."""
        return 8 * self.bytes / self.weights

    @property
    def gain(self) -> float | None:
        """By how much of the stock mix's mean divergence the dynamic one's is lower."""
        return 1 - self.dynamic.mean / self.stock.mean if self.stock and self.stock.mean else None

    @property
    def summary(self) -> str:
        """The outcome in a sentence or two."""
        size = f"{self.bytes:,} bytes, {self.bits:.2f} bits a weight"
        told = f"{self.name} ({size}): mean divergence {self.dynamic.mean:.2e} nats, same token in "
        told += f"{self.dynamic.same_top:.1%}"
        if self.stock is None or self.stock_bytes is None:
            return f"{told}. No mix of llama.cpp is that small."
        told += f"; {self.stock_name} ({self.stock_bytes:,} bytes) {self.stock.mean:.2e} nats and "
        told += f"{self.stock.same_top:.1%}."
        return told if self.uses_dynamic else f"{told} {self.stock_name} is written."

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    def save(self, path: Path | str) -> None:
        """Write it as JSON."""
        write_atomic(Path(path), json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> DynamicReport:
        """Read what `save` wrote.

        Raises:
            FileInvalid: it is something else.
        """
        try:
            values = json.loads(Path(path).read_text())
            for key in ("dynamic", "stock"):
                values[key] = Divergence(**values[key]) if values[key] else None
            values["tensors"] = [
                Choice(**{**one, "shape": tuple(one["shape"])}) for one in values["tensors"]
            ]
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileInvalid(
                f"{Path(path).name} is no report of a dynamic quantization.",
                f"{type(error).__name__}: {error}.",
                "give the .json file that lies beside the GGUF file.",
            ) from error
