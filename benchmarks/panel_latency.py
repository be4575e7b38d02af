"""From a key in a field to the painted forecast bar, in a real JupyterLab and Chromium.

    python benchmarks/panel_latency.py [--changes 40] [--pause 0.6] [--json latency.json]

For a small and an 8B model, with the method panel alone and in the Guide beside all others, a rank is
typed again and again. Prints the median and the 90th percentile of the milliseconds until the bar
that answers is on the screen, and how many messages and kilobytes one change sends to the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from harness import PAINTED, Notebook, running_browser, running_lab

MODELS = ("tunebook-tiny", "Qwen3-8B")
VIEWS = {"alone": "tunebook.MethodPanel(recipe)", "guide": "tunebook.Guide(recipe)"}
CELL = "import tunebook\nrecipe = tunebook.Recipe.of(model={model!r})\n{view}"
FIELD = '[data-field="lora.r"] input'
WARM_UP = 3


class Traffic:
    """Counts what the kernel's socket brings."""

    def __init__(self, page: Any) -> None:
        self.messages = self.bytes = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._frame))

    def _frame(self, payload: Any) -> None:
        data = payload if isinstance(payload, bytes) else payload.encode()
        if b'"comm_msg"' in data and b'"update"' in data:
            self.messages += 1
            self.bytes += len(data)


def measure(
    browser: Any, lab: Any, model: str, view: str, changes: int, pause: float
) -> dict[str, Any]:
    """Type `changes` ranks into one view of one model."""
    lab.end_sessions()
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    traffic = Traffic(page)
    name = lab.write(f"{view}.ipynb", [CELL.format(model=model, view=VIEWS[view])])
    notebook = Notebook(page, lab).goto(f"/tree/{name}")
    notebook.wait_kernel()
    notebook.run(0)
    page.locator("[data-total]").wait_for(timeout=120_000, state="attached")
    page.locator(FIELD).scroll_into_view_if_needed()
    page.wait_for_timeout(5000)  # what opening began has ended
    times = []
    for at in range(WARM_UP + changes):
        if at == WARM_UP:
            traffic.messages = traffic.bytes = 0
        times.append(page.evaluate(PAINTED, [FIELD, str(20 + 4 * (at % 8))]))
        page.wait_for_timeout(1000 * pause)
    context.close()
    taken = sorted(times[WARM_UP:])
    return {
        "model": model,
        "view": view,
        "median_ms": statistics.median(taken),
        "p90_ms": taken[int(0.9 * (len(taken) - 1))],
        "messages": traffic.messages / changes,
        "kilobytes": traffic.bytes / changes / 1000,
    }


def main() -> None:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.6, help="seconds between two changes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tunebook-latency-"))
    rows = []
    print("model           view    median    p90   messages  kB")
    with running_lab(folder) as lab, running_browser() as browser:
        for model in MODELS:
            for view in VIEWS:
                row = measure(browser, lab, model, view, options.changes, options.pause)
                rows.append(row)
                print(
                    f"{model:15} {view:6} {row['median_ms']:5.0f} ms {row['p90_ms']:4.0f} ms "
                    f"{row['messages']:8.1f} {row['kilobytes']:6.1f}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
