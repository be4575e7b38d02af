"""Looking into model files: what gguf and PEFT wrote is read back; bad files are named errors."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tunebook
from tunebook.cli import main
from tunebook.errors import FileInvalid
from tunebook.export.gguf_header import read_gguf

gguf = pytest.importorskip("gguf")

EMBEDDED = Path(tunebook.__file__).parent / "models/embedded"


def write_gguf(path: Path, *, endian: Any = gguf.GGUFEndian.LITTLE) -> Path:
    """A file as an exporter writes it: metadata of every type, two types of tensor, a template."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    writer.add_name('Pirate <b>"1"</b>')
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_rope_freq_base(10_000.5)
    writer.add_token_list([f"token {i}" for i in range(100)])
    writer.add_token_types([1] * 100)
    writer.add_token_scores([0.5] * 3)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_array("example.nested", [["a", "b"], ["c"]])
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    values = np.linspace(-1, 1, 64 * 96, dtype=np.float32).reshape(64, 96)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    for layer in range(2):
        writer.add_tensor(
            f"blk.{layer}.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0
        )
    writer.add_tensor("output_norm.weight", np.ones(96, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of the embedded model, as a run leaves it."""
    from tunebook.export import save_adapter
    from tunebook.models.adapters import add_lora
    from tunebook.models.loading import load_model, load_tokenizer
    from tunebook.recipe import LoraPart, ModelPart, QuantizationPart

    model = add_lora(load_model(ModelPart(), QuantizationPart(bits=16)), LoraPart(r=4), seed=1)
    return save_adapter(
        model, load_tokenizer(ModelPart()), tmp_path_factory.mktemp("run") / "adapter"
    )


def test_a_gguf_file_says_what_it_is(model_file: Path) -> None:
    seen = tunebook.inspect_file(model_file)
    assert (seen.kind, seen.title, seen.format) == ("gguf", 'Pirate <b>"1"</b>', "GGUF 3")
    facts = dict(seen.facts)
    assert facts["Architecture"] == "llama"
    assert facts["Quantization"] == "Q8_0"
    assert facts["Context"] == "2048"
    assert facts["Vocabulary"] == "100"
    assert seen.bytes == model_file.stat().st_size
    assert seen.chat_template.startswith("{% for m in messages %}")


def test_tensors_are_summed_by_type(model_file: Path) -> None:
    large, small = tunebook.inspect_file(model_file).types
    assert (large.type, large.tensors, large.parameters) == ("Q8_0", 2, 2 * 64 * 96)
    assert large.bytes == 2 * 64 * 96 * 34 // 32
    assert large.bits == 8.5
    assert (small.type, small.bytes, small.bits) == ("F32", 4 * 96, 32.0)


def test_long_arrays_are_told_by_their_count_and_beginning(model_file: Path) -> None:
    told = {entry.key: entry.text for entry in tunebook.inspect_file(model_file).metadata}
    assert told["tokenizer.ggml.tokens"].startswith("100 × string: token 0, token 1, ")
    assert told["tokenizer.ggml.tokens"].endswith("…")
    assert told["tokenizer.ggml.scores"] == "3 × float32: 0.5, 0.5, 0.5"
    assert told["tokenizer.ggml.add_bos_token"] == "true"
    assert "tokenizer.chat_template" not in told


@pytest.mark.parametrize("endian", list(gguf.GGUFEndian))
def test_it_reads_what_the_gguf_package_reads(tmp_path: Path, endian: Any) -> None:
    path = write_gguf(tmp_path / "model.gguf", endian=endian)
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    for tensor, expected in zip(ours.tensors, theirs.tensors, strict=True):
        assert tensor.name == expected.name
        assert tensor.type == expected.tensor_type.name
        assert tensor.shape == tuple(expected.shape.tolist())[::-1]
        assert tensor.bytes == expected.n_bytes
    keys = [key for key in theirs.fields if not key.startswith("GGUF.")]
    assert list(ours.values) == keys
    for key in ("general.name", "llama.context_length", "llama.rope.freq_base"):
        assert ours.values[key] == theirs.fields[key].contents()


def test_an_adapter_says_what_it_was_made_for(adapter: Path) -> None:
    seen = tunebook.inspect_file(adapter)
    facts = dict(seen.facts)
    assert seen.kind == "adapter"
    assert (facts["Kind"], facts["Rank"]) == ("LoRA", "4")
    assert "q_proj" in facts["Targets"]
    assert all("lora_" in tensor.name for tensor in seen.tensors)
    assert seen.bytes == (adapter / "adapter_model.safetensors").stat().st_size
    assert seen.chat_template == (EMBEDDED / "chat_template.jinja").read_text()


def test_a_folder_of_weights_is_told_by_its_configuration() -> None:
    seen = tunebook.inspect_file(EMBEDDED)
    assert seen.kind == "model"
    assert dict(seen.facts)["Layers"] == "6"
    assert seen.types[0].type == "BF16"


def cut(path: Path, to: Path, length: int) -> Path:
    to.write_bytes(path.read_bytes()[:length])
    return to


def test_a_gguf_file_cut_anywhere_is_a_named_error(model_file: Path, tmp_path: Path) -> None:
    whole = model_file.stat().st_size
    header = whole - 2 * 64 * 96 * 34 // 32 - 4 * 96
    for length in [*range(0, header, 7), whole - 40 - 4 * 96]:
        with pytest.raises(FileInvalid):
            tunebook.inspect_file(cut(model_file, tmp_path / "cut.gguf", length))
    with pytest.raises(FileInvalid, match="tensors reach to byte"):
        tunebook.inspect_file(cut(model_file, tmp_path / "cut.gguf", whole - 600))


HUGE = 2**62


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "version"),
        (struct.pack("<4sIQQ", b"GGUF", 3, HUGE, 0), "claims"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, HUGE), "claims"),
        (struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, HUGE), "cut off"),
        (struct.pack("<4sIQQQcI", b"GGUF", 3, 0, 1, 1, b"k", 77), "unknown type 77"),
        (struct.pack("<4sIQQQcIIQ", b"GGUF", 3, 0, 1, 1, b"k", 9, 8, HUGE), "claims"),
        (struct.pack("<4sIQQQcIIQQ", b"GGUF", 3, 0, 1, 1, b"k", 9, 8, 99, 9), "cut off"),
        (struct.pack("<4sIQQQcII", b"GGUF", 3, 1, 0, 1, b"t", 99, 0), "99 dimensions"),
    ],
)
def test_a_lying_header_is_a_named_error(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(FileInvalid, match=said):
        tunebook.inspect_file(path)


def test_a_type_of_tomorrow_is_shown_by_its_number(tmp_path: Path) -> None:
    info = struct.pack("<QcIQIQ", 1, b"t", 1, 64, 200, 0)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + info
    path = tmp_path / "new.gguf"
    path.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(48))
    (tensor,) = tunebook.inspect_file(path).tensors
    assert (tensor.type, tensor.bytes) == ("type 200", 48)


def header_of(entries: Any, *, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        header_of([]),
        header_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, data=bytes(4)),
        header_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}, data=bytes(9)),
        header_of({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}}, data=bytes(8)),
        header_of({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, data=bytes(4)),
        header_of({"a": 1}),
        header_of({})[:9] + b"{",
    ],
)
def test_a_bad_safetensors_file_is_a_named_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileInvalid):
        tunebook.inspect_file(path)


def test_pickled_adapter_weights_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"never read")
    with pytest.raises(FileInvalid, match="never loaded"):
        tunebook.inspect_file(tmp_path)


def adapter_with(config: str, folder: Path) -> Path:
    (folder / "adapter_config.json").write_text(config)
    save_file({"lora_A": np.zeros((2, 3), np.float32)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("config", ["[]", "{", "null"])
def test_a_damaged_adapter_configuration_is_a_named_error(tmp_path: Path, config: str) -> None:
    with pytest.raises(FileInvalid, match=r"adapter_config\.json"):
        tunebook.inspect_file(adapter_with(config, tmp_path))


def test_an_odd_adapter_configuration_is_shown_as_it_is(tmp_path: Path) -> None:
    seen = tunebook.inspect_file(adapter_with('{"r": {}, "target_modules": 3}', tmp_path))
    assert dict(seen.facts)["Targets"] == "3"
    assert dict(seen.facts)["Rank"] == "{}"


@pytest.mark.parametrize("name", ["missing.gguf", "notes.txt", "."])
def test_nothing_to_inspect_is_a_named_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(FileInvalid):
        tunebook.inspect_file(tmp_path / name)


def test_the_command_prints_no_escape_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w\x1b[2J": np.zeros(3, np.float16)}, path, metadata={"by": "\x1b]0;owned\x07"})
    assert main(["inspect", str(path), "--all"]) == 0
    printed = capsys.readouterr().out
    assert "F16" in printed
    assert "owned" in printed
    assert "\x1b" not in printed
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["types"][0]["parameters"] == 3


def test_inspecting_imports_no_torch(model_file: Path) -> None:
    code = "import sys, tunebook; tunebook.inspect_file(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
