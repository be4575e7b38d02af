"""Hardware is found without torch, cards are known by name, and a CPU is measured quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunebook.errors import RecipeInvalid
from tunebook.plan import Hardware
from tunebook.plan.hardware import GIB, cards, match_card


@pytest.mark.parametrize(
    ("driver_name", "card"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("Quadro P400", None),
    ],
)
def test_driver_names_mean_cards(driver_name, card):
    assert match_card(driver_name) == card


def test_a_card_by_name_has_its_memory_and_dtype():
    t4, h200 = Hardware.of("T4"), Hardware.of("h200")
    assert not t4.supports_bf16
    assert h200.supports_bf16
    assert 14 * GIB < t4.free_memory < t4.total_memory <= 16 * GIB
    assert h200.flops > 10 * t4.flops


def test_every_card_makes_hardware():
    for name in cards():
        assert Hardware.of(name).device == "cuda"


def test_a_card_has_a_link_and_a_host_half_of_which_may_be_pinned():
    t4 = Hardware.of("T4")
    assert t4.link < Hardware.of("A100").link < Hardware.of("H100").link < 64e9
    assert t4.pinnable == t4.total_memory // 2
    assert t4.model_copy(update={"host_memory": 12 * GIB}).pinnable == 6 * GIB
    assert Hardware.of("cpu").pinnable == 0


def test_an_unknown_card_is_refused_with_close_names():
    with pytest.raises(RecipeInvalid) as caught:
        Hardware.of("RTX 409")
    assert "RTX 4090" in caught.value.do


def test_the_cpu_has_memory_and_speed():
    cpu = Hardware.of("cpu")
    assert cpu.device == "cpu"
    assert 0 < cpu.free_memory <= cpu.total_memory
    assert cpu.flops > 1e8
    assert cpu.bandwidth > 1e8
    assert Hardware.of("cpu").flops == cpu.flops  # measured once in a process


def test_planning_needs_no_torch():
    code = (
        "import sys\n"
        "from tunebook.plan import Hardware, make_plan\n"
        "from tunebook.recipe import Recipe\n"
        "plan = make_plan(Recipe.of('Llama-3.2-1B-Instruct'), hardware=Hardware.of('T4'))\n"
        "assert plan.fits\n"
        "Hardware.of('cpu')\n"
        "loaded = {'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
