"""One real JupyterLab and one real Chromium for all browser tests; imports no tunebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import Lab, Notebook, running_browser, running_lab
from stacks import STACKS


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all browser tests, below a base URL as on a JupyterHub."""
    others = tuple(name for name in STACKS if name.startswith("ipykernel"))
    folder = tmp_path_factory.mktemp("lab")
    with running_lab(folder, stacks=others, base_url="/user/x/") as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all browser tests."""
    with running_browser() as chrome:
        yield chrome


@pytest.fixture
def open_notebook(lab: Lab, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open a notebook of the cells given, with a fresh kernel: `open_notebook("...", "...")`.

    `kernel=` names one of `stacks.STACKS` instead of the installed one.
    """
    lab.end_sessions()
    context = browser.new_context(viewport={"width": 1300, "height": 1000})

    def opened(*cells: str, kernel: str = "python3") -> Notebook:
        title = request.node.name.split("[")[0]
        name = lab.write(f"{title}.ipynb", list(cells), kernel=kernel)
        notebook = Notebook(context.new_page(), lab).goto(f"/tree/{name}")
        notebook.wait_kernel()
        return notebook

    yield opened
    context.close()


@pytest.fixture
def open_lab(lab: Lab, browser: Any) -> Iterator[Any]:
    """Open JupyterLab itself, with no notebook: `open_lab()`."""
    lab.end_sessions()
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    yield lambda: Notebook(context.new_page(), lab).goto("")
    context.close()
