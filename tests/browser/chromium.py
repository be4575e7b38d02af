"""Find a Chromium or Chrome for the browser tests, or get one; run as a script, it makes sure.

First what is there, then Debian's package where this user may install it, then Playwright's own
download. If none can be had, it fails: browser tests are not skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def find() -> str | None:
    """The path of a browser that can be driven, or None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return str(own) if own.is_file() else None


def ensure() -> str:
    """The path of a browser, installed if need be; raises RuntimeError if none can be had."""
    path = find()
    for install in (_debian, _playwright):
        if path is None:
            install()
            path = find()
    if path is None:
        raise RuntimeError(
            "There is no Chromium and none could be installed. Install one, for example with "
            "`apt install chromium` or `playwright install chromium`, and run the tests again."
        )
    return path


def _debian() -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "chromium", "fonts-liberation"],
    ):
        subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)


def _playwright() -> None:
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    subprocess.run(command, check=False)


if __name__ == "__main__":
    sys.stdout.write(f"browser: {ensure()}\n")
