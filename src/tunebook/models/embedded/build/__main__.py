"""Build the embedded model from nothing: corpus, tokenizer, training, measures, model card.

Run as `python -m tunebook.models.embedded.build --out DIR --device cuda`. It knows the order of
the parts and none of their insides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunebook.models.embedded.build.card import model_card
from tunebook.models.embedded.build.corpus import ROW, SPECIAL, packed_corpus
from tunebook.models.embedded.build.evaluate import evaluate, samples
from tunebook.models.embedded.build.tokenizer import save_tokenizer, train_tokenizer
from tunebook.models.embedded.build.train import Ids, Schedule, new_model, train


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tunebook.models.embedded.build")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=9357)
    parser.add_argument("--rows", type=int, default=128, help="rows of 512 tokens a step")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--per-shard", type=int, default=25_000, help="documents a shard")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--eval-limit", type=int, default=None)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def _log(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Build, measure and write everything into the folder."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    began = time.monotonic()
    save_tokenizer(train_tokenizer(args.seed), args.out)
    path = str(args.out / "tokenizer.json")
    _log(f"tokenizer {time.monotonic() - began:.0f} s")
    packed = packed_corpus(path, args.seed, args.shards, args.per_shard, args.workers)
    rows = torch.frombuffer(packed, dtype=torch.int16).reshape(-1, ROW).to(args.device)
    _log(f"corpus {rows.numel():,} tokens {time.monotonic() - began:.0f} s")

    ids = Ids(*range(len(SPECIAL)))  # the trainer numbers the special tokens first
    model = new_model(ids, args.seed).to(args.device)
    schedule = Schedule(args.steps, args.rows, args.lr, max_seconds=args.max_seconds)
    took = train(model, rows, ids, schedule, args.seed, _log, compiled=args.compile)
    model.to(torch.bfloat16).save_pretrained(args.out)

    saved = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.bfloat16).to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    measures, by_topic, misses = evaluate(saved, tokenizer, args.seed + 77_777, args.eval_limit)
    measures = {**took, "corpus_tokens": rows.numel(), **measures}
    spoken = samples(saved, tokenizer)
    _log(json.dumps(measures, indent=2))
    _log(json.dumps({k: v for k, v in by_topic.items() if v < 1.0}, indent=2))
    _log("\n".join(misses[:40]))
    _log("\n".join(f"> {question}\n{answer}" for question, answer in spoken))
    (args.out / "README.md").write_text(model_card(saved.num_parameters(), measures, spoken))


if __name__ == "__main__":
    main()
