"""llama.cpp's own tools and our importance data: theirs read ours, ours read theirs, and both say the same.

`llama-quantize` and `llama-imatrix` are looked for on the PATH and in the folder that
`TUNEBOOK_LLAMA_TOOLS` names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from tunebook.export import load_imatrix, measure_importance, save_gguf, save_imatrix
from tunebook.export.gguf.battery import text_battery
from tunebook.export.gguf.blocks import dequantize
from tunebook.export.gguf.writer import content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import ModelPart, QuantizationPart

pytestmark = pytest.mark.llama_cpp
CHUNK = 128


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelPart())


def tool(name: str, *arguments: object) -> str:
    """What a tool of llama.cpp prints; the test is skipped where the tool is not."""
    places = os.pathsep.join(
        filter(None, (os.environ.get("TUNEBOOK_LLAMA_TOOLS"), os.environ["PATH"]))
    )
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is neither on the PATH nor in TUNEBOOK_LLAMA_TOOLS")
    done = subprocess.run(
        [found, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.gguf")
    return file


def stored(file: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor."""
    data = file.read_bytes()
    return {
        tensor.name: (tensor.type, data[tensor.start : tensor.start + tensor.bytes])
        for tensor in read_gguf(file).tensors
    }


@pytest.mark.parametrize("mix", ["Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"])
@pytest.mark.parametrize("family", ["llama-3.1", "mixtral"])
def test_llama_quantize_makes_the_same_of_our_importance(
    family: str, mix: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model(family)
    content = content_of(model, tokenizer)
    generator = torch.Generator().manual_seed(5)
    rows = torch.randint(10, 2000, (24, 30), generator=generator).tolist()
    importance = measure_importance(model, content.tensors, rows, datasets=["some rows"])
    imatrix = save_imatrix(importance, tmp_path / "im.gguf")
    whole = only_file(save_gguf(model, tokenizer, tmp_path / "f32", quantization="f32"))
    theirs = tmp_path / "theirs.gguf"
    said = tool("llama-quantize", "--imatrix", imatrix, whole, theirs, mix)
    without = [line for line in said.splitlines() if "did not find weights" in line]
    assert all("token_embd" in line for line in without)  # it is looked up, not multiplied with
    ours = only_file(
        save_gguf(model, tokenizer, tmp_path / "a", quantization=mix.lower(), importance=importance)
    )
    plain = only_file(save_gguf(model, tokenizer, tmp_path / "b", quantization=mix.lower()))
    values = read_gguf(theirs).values
    assert values["quantize.imatrix.entries_count"] == len(importance.tensors)
    assert values["quantize.imatrix.dataset"] == "some rows"
    one, other, unweighted = stored(ours), stored(theirs), stored(plain)
    assert {n: kind for n, (kind, _) in one.items()} == {n: kind for n, (kind, _) in other.items()}
    columns = importance.columns()
    changed = 0
    for tensor in content.tensors:
        kind, data = one[tensor.name]
        if kind == "F32":
            continue
        wanted = tensor.load()
        weight = columns.get(tensor.name, torch.ones(tensor.shape[-1]))
        weight = weight[:, None] if weight.ndim == 2 else weight
        errors = []
        for packed in (data, other[tensor.name][1]):
            bits = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
            got = dequantize(bits.view(*tensor.shape[:-1], -1), kind)
            errors.append(float(((got - wanted).square() * weight).sum()))
        assert errors[0] < 1.001 * errors[1], tensor.name
        changed += data != unweighted[tensor.name][1]
    assert changed > 5


def test_what_llama_imatrix_measures_is_what_we_measure(tokenizer: Any, tmp_path: Path) -> None:
    model = load_model(ModelPart(), QuantizationPart(bits=16))
    whole = only_file(save_gguf(model, tokenizer, tmp_path / "f32", quantization="f32"))
    text = " ".join(text_battery()[9:16]) * 9
    (tmp_path / "text.txt").write_text(text)
    imatrix = tmp_path / "im.gguf"
    tool(
        "llama-imatrix",
        *("-m", whole, "-f", tmp_path / "text.txt", "-o", imatrix, "-c", CHUNK, "-t", 1),
        *("--chunks", 3, "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-ppl"),
    )
    theirs = load_imatrix(imatrix)
    ids: list[int] = tokenizer(text)["input_ids"]
    start = tokenizer.bos_token_id
    rows = [ids[at : at + CHUNK] for at in range(0, 3 * CHUNK, CHUNK)]
    if start is not None and read_gguf(whole).values.get("tokenizer.ggml.add_bos_token"):
        rows = [[start, *row[1:]] for row in rows]
    content = content_of(model, tokenizer)
    ours = measure_importance(model, content.tensors, rows).columns()
    found = theirs.columns()
    assert len(found) == 6 * 7
    assert theirs.chunks == 3
    for name, columns in found.items():
        torch.testing.assert_close(columns, ours[name], rtol=0.02, atol=1e-5, msg=name)
    folder = save_gguf(
        model, tokenizer, tmp_path / "a", quantization="q4_k_m", importance=str(imatrix)
    )
    values = read_gguf(only_file(folder)).values
    assert values["quantize.imatrix.file"] == "im.gguf"
