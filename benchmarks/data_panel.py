"""Opening a large JSONL file in the data panel, in a real JupyterLab and Chromium, and scrolling it.

    python benchmarks/data_panel.py --gigabytes 1 --json panel.json

Prints the seconds until the first rows and until all rows are listed, and the frames a second and
the longest frame while the list is scrolled, with all rows still being read behind it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from harness import Notebook, running_browser, running_lab

CELLS = ["import tunebook; panel = tunebook.DataPanel(); panel", "panel.do_source({path!r})"]
SCROLL = """async seconds => {
  const list = document.querySelector('.tb-list'), frames = [];
  const begun = performance.now();
  let last = begun, blank = 0;
  await new Promise(done => {
    const step = now => {
      frames.push(now - last); last = now;
      list.scrollTop += list.scrollHeight / 6000;
      if (list.querySelector('.tb-line[aria-busy]')) blank += 1;
      now - begun < 1000 * seconds ? requestAnimationFrame(step) : done();
    };
    requestAnimationFrame(step);
  });
  frames.shift();
  frames.sort((a, b) => a - b);
  return {fps: 1000 * frames.length / (last - begun), longest_ms: frames.at(-1),
          p99_ms: frames[Math.floor(.99 * frames.length)], waiting_share: blank / frames.length};
}"""


def write_file(path: Path, size: int) -> int:
    """Conversations of made-up words, `size` bytes of them; returns the rows."""
    chance = random.Random(0)
    words = ["the", "of", "and", "to", "is", "you", "that", "it", "was", "for", "on", "with"]
    texts = [" ".join(chance.choices(words, k=chance.randint(10, 250))) for _ in range(4000)]
    rows = written = 0
    with path.open("w") as file:
        while written < size:
            asked = {"role": "user", "content": f"{rows}: {chance.choice(texts)[:120]}?"}
            answer = {"role": "assistant", "content": chance.choice(texts)}
            written += file.write(json.dumps({"messages": [asked, answer]}) + "\n")
            rows += 1
    return rows


def measure(path: Path, rows: int) -> dict[str, Any]:
    """Open the file in a panel whose tokenizer is loaded, and scroll."""
    with running_lab(Path(tempfile.mkdtemp())) as lab, running_browser() as browser:
        cells = [CELLS[0], CELLS[1].format(path=str(path))]
        page = browser.new_context(viewport={"width": 1300, "height": 1200}).new_page()
        notebook = Notebook(page, lab).goto(f"/tree/{lab.write('big.ipynb', cells)}")
        notebook.wait_kernel()
        notebook.run(0)
        page.wait_for_selector(".tb-stats dd", timeout=120_000)
        page.evaluate("() => { document.querySelector('.tb-stats').dataset.old = 1 }")
        begun = time.monotonic()
        notebook.run(1, wait=False)
        first_words = '.tb-line-words:has-text("0: ")'
        page.wait_for_selector(first_words, timeout=60_000)
        first = time.monotonic() - begun
        page.wait_for_selector(f'.tb-search-state:has-text("{rows:,} rows")', timeout=120_000)
        listed = time.monotonic() - begun
        page.wait_for_timeout(1000)
        page.locator(".tb-list").scroll_into_view_if_needed()
        return {"first_rows_s": first, "all_listed_s": listed, **page.evaluate(SCROLL, 6)}


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.jsonl"
        rows = write_file(path, int(options.gigabytes * 2**30))
        result = {"rows": rows, "bytes": path.stat().st_size, **measure(path, rows)}
    for name, value in result.items():
        print(f"{name:<16} {value:,.2f}" if isinstance(value, float) else f"{name:<16} {value:,}")
    if options.json:
        options.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
