"""Build the embedded vision model from nothing: pictures, tokenizer, training, measures, model card.

`--make-data FILE` draws the pictures, which needs matplotlib; `--data FILE --out DIR` trains on them,
which does not. It knows the order of the parts and none of their insides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tunebook.latex.scores import score
from tunebook.models.embedded_vision.build.batches import Shelf, prompts
from tunebook.models.embedded_vision.build.card import model_card
from tunebook.models.embedded_vision.build.evaluate import answers, by_length
from tunebook.models.embedded_vision.build.model import new_model, save_processor
from tunebook.models.embedded_vision.build.pictures import (
    Pictures,
    first,
    make_pictures,
    read_pictures,
    write_pictures,
)
from tunebook.models.embedded_vision.build.tokenizer import save_tokenizer, train_tokenizer
from tunebook.models.embedded_vision.build.train import Schedule, train


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tunebook.models.embedded_vision.build")
    parser.add_argument("--make-data", type=Path, metavar="FILE", help="draw the pictures and stop")
    parser.add_argument("--data", type=Path, metavar="FILE", help="pictures drawn before")
    parser.add_argument("--out", type=Path, help="the model's folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="of training; drawing not counted"
    )
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--rows", type=int, default=256, help="pictures a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--lines", type=float, default=0.25, help="share of lines of single signs")
    parser.add_argument("--growing", type=float, default=0.25, help="share in which formulas grow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--levels", default="12", help="difficulties to draw, such as 12 or 123")
    parser.add_argument("--pictures", type=int, default=70_000, help="to train on")
    parser.add_argument("--test", type=int, default=2000, help="pictures never trained on")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if not (arguments.make_data or arguments.out):
        parser.error("say what to make: --make-data FILE, or --out DIR")
    return arguments


def _log(text: str) -> None:
    print(text, flush=True)


def _pictures(args: argparse.Namespace) -> Pictures:
    if args.data:
        return first(read_pictures(args.data), args.pictures)
    levels = tuple(int(level) for level in args.levels)
    return make_pictures(args.pictures, args.test, args.seed, levels, args.workers)


def main() -> None:
    """Build, measure and write everything into the folder."""
    args = _arguments()
    torch.set_float32_matmul_precision("high")
    began = time.monotonic()
    pictures = _pictures(args)
    _log(f"{len(pictures.formulas)} pictures, {time.monotonic() - began:.0f} s")
    if args.make_data:
        write_pictures(pictures, args.make_data)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(pictures.formulas)
    save_tokenizer(tokenizer, args.out)
    save_processor(args.out)
    model = new_model(tokenizer, args.seed).to(args.device)
    shelf = Shelf(pictures, tokenizer, args.device)
    asked = prompts(tokenizer, args.device)
    schedule = Schedule(60 * args.minutes, args.steps, args.rows, args.lr, args.lines, args.growing)
    took = train(model, shelf, asked, schedule, args.seed, _log)

    model.to(torch.bfloat16).save_pretrained(args.out)
    pairs = answers(model.float(), shelf, tokenizer, asked, args.test)
    report = _report(model.num_parameters(), len(shelf.train), took, pairs)
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.out / "README.md").write_text(model_card(report))
    _log(json.dumps(report, indent=2))


def _report(
    parameters: int, trained_on: int, took: dict[str, float], pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    """What was measured on the test split, with some answers right and wrong."""
    right = [pair for pair in pairs if pair[0] == pair[1]]
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    return {
        "parameters": parameters,
        "trained_on": trained_on,
        **took,
        "held_out": asdict(score(pairs)),
        "by_length": {name: asdict(one) for name, one in by_length(pairs).items()},
        "right": right[:: max(1, len(right) // 6)][:6],
        "wrong": wrong[:: max(1, len(wrong) // 20)][:20],
    }


if __name__ == "__main__":
    main()
