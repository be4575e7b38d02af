"""Each peer as its users run it: loaded, given an adapter, and a trainer made for fixed-length rows.

Knows the peers' interfaces; knows no clock and no table. A peer's packages are imported when it is
opened, since Unsloth must come before the packages that it changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speed.models import RANK, SEED, TARGETS

Rows = list[list[int]]


@dataclass(frozen=True)
class Kind:
    """How a peer is opened, what must be installed for it, and what its environment is told."""

    open: Callable[[Path, int], Any]
    packages: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    rival: bool = True

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


class Trl:
    """transformers, PEFT and bitsandbytes under TRL's trainer, with or without Liger's layers."""

    def __init__(self, folder: Path, longest: int, *, liger: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.liger = liger
        with timed(self.seconds, "import"):
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from trl import SFTConfig, SFTTrainer

        on_gpu = torch.cuda.is_available()
        with timed(self.seconds, "load"):
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.bfloat16 if on_gpu else torch.float32,
                attn_implementation="sdpa",
                device_map={"": 0 if on_gpu else "cpu"},
            )
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.classes = SFTConfig, SFTTrainer
        self.adapted = False

    def trainer(self, batch: int, rows: Rows, steps: int, folder: Path, callback: Any) -> Any:
        """A trainer over these rows; the first one puts the adapter on, as TRL does it."""
        from peft import LoraConfig

        new_config, new_trainer = self.classes
        options = _options(batch, rows, steps, folder)
        lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=RANK, target_modules=TARGETS)
        trainer = new_trainer(
            self.model,
            args=new_config(**options, gradient_checkpointing=True, use_liger_kernel=self.liger),
            train_dataset=learn_all(rows),
            processing_class=self.tokenizer,
            peft_config=None if self.adapted else lora,
            callbacks=[callback],
        )
        self.model, self.adapted = trainer.model, True
        return trainer

    def facts(self, trainer: Any) -> dict[str, Any]:
        """What else a reader of the figures wants to know."""
        return {"attention": trainer.model.config._attn_implementation}


class Unsloth:
    """Unsloth's fast model under the trainer that it patches, with its own checkpointing."""

    def __init__(self, folder: Path, longest: int) -> None:
        self.seconds: dict[str, float] = {}
        with timed(self.seconds, "import"):
            import unsloth  # before torch's friends, as it asks

        fast = unsloth.FastLanguageModel
        with timed(self.seconds, "load"):
            model, self.tokenizer = fast.from_pretrained(
                str(folder), max_seq_length=longest, load_in_4bit=True, local_files_only=True
            )
        with timed(self.seconds, "adapt"):
            self.model: Any = fast.get_peft_model(
                model,
                r=RANK,
                lora_alpha=RANK,
                lora_dropout=0.0,
                target_modules=TARGETS,
                use_gradient_checkpointing="unsloth",
                random_state=SEED,
            )

    def trainer(self, batch: int, rows: Rows, steps: int, folder: Path, callback: Any) -> Any:
        """A trainer over these rows; batches with or without padding, as it decides."""
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=self.model,
            args=SFTConfig(**_options(batch, rows, steps, folder)),
            train_dataset=learn_all(rows),
            processing_class=self.tokenizer,
            callbacks=[callback],
        )

    def facts(self, trainer: Any) -> dict[str, Any]:
        """What else a reader of the figures wants to know."""
        return {"padding_free": bool(getattr(trainer.data_collator, "padding_free", False))}


def _options(batch: int, rows: Rows, steps: int, folder: Path) -> dict[str, Any]:
    """What every rival's `SFTConfig` is given."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "max_length": len(rows[0]),
        "packing": False,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_8bit" if on_gpu else "adamw_torch",
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": SEED,
    }


def learn_all(rows: Rows) -> Any:
    """Rows as a trainer takes them; every token is learnt."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": rows, "labels": rows})


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a block took, the work that it gave to the device included."""
    began = time.perf_counter()
    yield
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[name] = time.perf_counter() - began


def _liger(folder: Path, longest: int) -> Trl:
    return Trl(folder, longest, liger=True)


def _tunebook(folder: Path, longest: int) -> Any:
    from speed.ours import Tunebook

    return Tunebook(folder, longest)


_HUGGING_FACE = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
PEERS = {
    "trl": Kind(Trl, _HUGGING_FACE),
    "liger": Kind(_liger, (*_HUGGING_FACE, "liger_kernel")),
    "unsloth": Kind(Unsloth, (*_HUGGING_FACE, "unsloth")),
    "unsloth-padded": Kind(
        Unsloth, (*_HUGGING_FACE, "unsloth"), {"UNSLOTH_PADDING_CHOICE": "padded"}
    ),
    "tunebook": Kind(_tunebook, (*_HUGGING_FACE, "tunebook"), rival=False),
    "tunebook-capped": Kind(_tunebook, (*_HUGGING_FACE, "tunebook"), rival=False),
}
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_environment(peer: str, caches: Path) -> None:
    """Set what must be known before any import: nothing is fetched, no kernel is cached yet."""
    os.environ.update(ENVIRONMENT)
    os.environ.update(PEERS[peer].environment)
    os.environ["TRITON_CACHE_DIR"] = str(caches / "triton")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(caches / "unsloth")
