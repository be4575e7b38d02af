"""The tokenizer and chat template: byte-level BPE learnt from formulas and instructions.

Knows the special tokens and the chat format of the family; it knows nothing of the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = (
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)
VOCABULARY = 768

INSTRUCTIONS = (
    "Write the LaTeX representation for this image.",
    "Write the LaTeX for this formula.",
    "Convert this formula to LaTeX.",
    "Convert the image to LaTeX.",
    "Read the formula.",
    "What is the LaTeX of this formula?",
    "What formula is in the picture?",
    "Transcribe the equation in this image.",
    "Give the LaTeX code of the image.",
    "Please write this equation in LaTeX.",
    "OCR",
    "LaTeX:",
    "",
)
"""What the model was trained to be asked, before or behind the picture."""

_WORDS = """\
You are a helpful assistant. You read formulas from pictures and answer in LaTeX only. Hello! Thank you.
Which equation do you see? Describe the image. Answer with the formula alone, without explanation.
The user shows a photo of an expression; the assistant writes its code. What does this say, please?
"""

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {%- if message['content'] is string %}
                {{- message['content'] }}
            {%- else %}
                {%- for part in message['content'] %}
                    {{- part['text'] }}
                {%- endfor %}
            {%- endif %}
            {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for part in message['content'] %}
                {%- if part['type'] == 'image' or 'image' in part or 'image_url' in part %}
                    {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
                {%- elif 'text' in part %}
                    {{- part['text'] }}
                {%- else %}
                    {{- raise_exception('Parts are text and image, not ' + part['type']) }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def train_tokenizer(formulas: Sequence[str]) -> Tokenizer:
    """Learn the merges: every command of the grammar and every word of the instructions is short."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*formulas, *INSTRUCTIONS * 200, *_WORDS.splitlines() * 200, "user assistant system"],
        trainer,
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The number of a token that is there."""
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files that `AutoTokenizer` reads."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": 2048,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
