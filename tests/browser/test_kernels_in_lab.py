"""What must hold on every ipykernel: live while a cell blocks, Stop, and a reload in mid-run."""

from __future__ import annotations

from typing import Any

import pytest
from test_panels_in_lab import begin_training, guide_cell

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("kernel", ["ipykernel-7.3", "ipykernel-6.31", "ipykernel-6.17"])
def test_a_run_is_live_while_a_cell_blocks_and_after_a_reload(
    open_notebook: Any, kernel: str
) -> None:
    notebook = open_notebook(
        guide_cell(kernel, 2000),
        "import ipykernel, time; time.sleep(5); ipykernel.__version__",
        kernel=kernel,
    )
    notebook.run(0)
    begin_training(notebook)
    notebook.run(1, wait=False)
    notebook.page.wait_for_timeout(500)
    before = notebook.points()
    notebook.until(lambda: notebook.points() > before, seconds=5, what="points in a blocked cell")
    version = kernel.partition("-")[2]
    notebook.until(lambda: version in notebook.output(1), seconds=15, what="the end of the cell")
    notebook.save()
    notebook.page.reload()
    notebook.page.wait_for_selector('[data-plot="loss"]', timeout=60_000)
    here = notebook.points()
    notebook.until(lambda: notebook.points() > here, seconds=20, what="new points after a reload")
    notebook.page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    notebook.until(lambda: notebook.state() == "stopped", seconds=30, what="the stop")
    assert notebook.errors() == []
