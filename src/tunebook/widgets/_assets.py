"""The built front end of the panels: which file belongs to which panel, and whether it was built.

This module knows nothing of traits or recipes.
"""

from __future__ import annotations

import functools
from pathlib import Path

from tunebook.errors import FrontEndMissing

STATIC = Path(__file__).parent / "static"


@functools.cache
def asset(name: str) -> str:
    """The text of one built file, such as `train.js` or `panels.css`.

    Raises:
        FrontEndMissing: a source tree whose front end has not been built.
    """
    path = STATIC / name
    if not path.is_file():
        raise FrontEndMissing(
            "The panels cannot be shown: their front end has not been built.",
            f"there is no file {path}; only wheels carry the built files, a source tree does not.",
            "run `npm ci` and `npm run build:widgets` in the checkout, or install the wheel.",
        )
    return path.read_text(encoding="utf-8")
