"""Are the right tokens learnt? Every template, tokenizer and conversation shape against a reference.

The reference shares no code with `tunebook.data.rendering`: it renders with transformers itself and
reads spans off `{% generation %}` marks, or off a table of headers and endings checked by hand.

    python benchmarks/mask_table.py [--data ../shared/data] [--quick] [--json table.json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook.data.conversations import Conversation
from tunebook.data.masking import MASKED, Encoder
from tunebook.data.templates import TEMPLATES, get_chat_template, without_generation_marks
from tunebook.errors import TemplateInvalid

Span = tuple[int, int]
_EOS = "@eos@"  # stands for the tokenizer's end token
_THINK = "<|im_start|>assistant\n<think>\n"


@dataclass(frozen=True)
class Format:
    """A template's texts, checked by hand: what stands before an answer and what ends it.

    Attributes:
        headers: the longest that is there is what the model is given.
        end: ends an answer; None if the template writes nothing there.
        last: ends the last answer, if that differs; "" for nothing.
        question: begins the next question where `end` is None.
        call: ends a turn that calls a tool, if that differs.
        also: other texts that an answer can stand behind, such as the end of a tool's result.
    """

    headers: tuple[str, ...]
    end: str | None
    last: str | None = None
    question: str = ""
    call: str | None = None
    also: tuple[str, ...] = ()


_CHATML = Format(("<|im_start|>assistant\n",), "<|im_end|>")
_OPENED = Format((_THINK, _THINK.removesuffix("\n"), "<|im_start|>assistant\n"), "<|im_end|>")
_LLAMA = Format(("<|start_header_id|>assistant<|end_header_id|>\n\n",), "<|eot_id|>")
_INST = Format(("[/INST]",), _EOS, also=("[/TOOL_RESULTS]",))
# Gemma 4 stops at the mark that opens a tool's result; words beside a call come behind the result.
_GEMMA4 = Format(
    ("<|turn>model\n<|channel>thought\n<channel|>", "<|turn>model\n"),
    "<turn|>",
    call="<|tool_response>",
    also=("<tool_response|>Let me look.<turn|>\n", "<tool_response|>"),
)
_GRANITE = Format(("<|start_of_role|>assistant<|end_of_role|>",), "<|end_of_text|>")
_GIGA = Format(("assistant<|role_sep|>\n",), "<|message_sep|>")
_KIMI = Format(("<|im_assistant|>assistant<|im_middle|>",), "<|im_end|>")
_DS_END = "<｜end▁of▁sentence｜>"
_DS = ("<｜Assistant｜><think>\n", "<｜Assistant｜>")
_GLM = Format(("<|assistant|><think>", "<|assistant|>"), None, "", "<|user|>", "</tool_call>")
FORMATS: dict[str, Format] = {
    "Apertus-8B-Instruct": Format(
        ("<|assistant_start|>",), "<|assistant_end|>", "", "", "<|tools_suffix|>", ("[sunny]",)
    ),
    "Apriel-1.6-15b-Thinker-fixed": Format(
        ("<|begin_assistant|>\nHere are my reasoning steps:\n", "<|begin_assistant|>\n"),
        "\n<|end|>",
        "",
    ),
    "Bielik-11B-v3.0-Instruct": _CHATML,
    "ByteDance-Seed-OSS": Format(
        ("<seed:bos>assistant\n", "<seed:bos>assistant"), "<seed:eos>", question="<seed:bos>user"
    ),
    "Cohere2MoE": Format(
        ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",),
        "<|END_TEXT|><|END_OF_TURN_TOKEN|>",
        call="<|END_ACTION|><|END_OF_TURN_TOKEN|>",
    ),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": Format(
        ("<|CHATBOT_TOKEN|><|START_RESPONSE|>",), "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    ),
    "GLM-4.6": _GLM,
    "GLM-4.7-Flash": _GLM,
    "GigaChat3-10B-A1.8B": _GIGA,
    "GigaChat3.1-10B-A1.8B": _GIGA,
    "HuggingFaceTB-SmolLM3-3B": _CHATML,
    "Kimi-K2-Instruct": _KIMI,
    "Kimi-K2-Thinking": _KIMI,
    "moonshotai-Kimi-K2": _KIMI,
    "Kimi-K3": Format(
        ('<|open|>message role="assistant"<|sep|><|open|>think<|sep|>',),
        "<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|>",
        call="<|close|>tools<|sep|><|close|>message<|sep|><|end_of_msg|>",
    ),
    "LFM2-8B-A1B": _CHATML,
    "LFM2.5-Instruct": _CHATML,
    "MiMo-VL": _CHATML,
    "MiniMax-M1": Format(("<beginning_of_sentence>ai name=assistant\n",), "<end_of_sentence>"),
    "MiniMax-M2": Format(("]~b]ai\n<think>\n", "]~b]ai\n"), "[e~["),
    "MiniMax-M3": Format(("]~b]ai\n",), "[e~["),
    "Mistral-Small-3.2-24B-Instruct-2506": _INST,
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": _OPENED,
    "NVIDIA-Nemotron-Nano-v2": Format(
        ("<SPECIAL_11>Assistant\n<think>\n", "<SPECIAL_11>Assistant\n"), "\n<SPECIAL_12>"
    ),
    "Qwen-QwQ-32B": Format(
        ("<|im_start|>assistant\n<think>\n</think>", "<|im_start|>assistant\n"), "<|im_end|>"
    ),
    "Qwen-Qwen2.5-7B-Instruct": _CHATML,
    "Qwen-Qwen3-0.6B": _CHATML,
    "Qwen3-Coder": _CHATML,
    "Qwen3.5-4B": _OPENED,
    "Reka-Edge": Format(("assistant:",), "\n\n<sep>"),
    "Spark2.5": Format(("<|Bot|>",), _DS_END),
    "StepFun3.5-Flash": _OPENED,
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": Format(_DS, _DS_END),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": Format(
        ("<｜Assistant｜><think>\n</think>", "<｜Assistant｜>"),
        _DS_END,
        also=("<｜tool▁outputs▁end｜>",),
    ),
    "deepseek-ai-DeepSeek-V3.1": Format(
        ("<｜Assistant｜><think></think>", "<｜Assistant｜>"),
        _DS_END,
        also=("<｜tool▁output▁end｜>",),
    ),
    "deepseek-ai-DeepSeek-V3.2": Format(
        ("<｜Assistant｜><think></think>", "<｜Assistant｜>"),
        _DS_END,
        also=("</function_results>\n\n</think>",),
    ),
    "deepseek-ai-DeepSeek-V4-Flash-0731": Format(("<｜Assistant｜></think>",), _DS_END),
    "deepseek-ai-DeepSeek-V4": Format(("<｜Assistant｜></think>",), _DS_END),
    "llama-cpp-deepseek-r1": Format(_DS, _DS_END),
    "google-gemma-2-2b-it": Format(("<start_of_turn>model\n",), "<end_of_turn>"),
    "google-gemma-4-31B-it-interleaved": _GEMMA4,
    "google-gemma-4-31B-it": _GEMMA4,
    "ibm-granite-granite-3.3-2B-Instruct": _GRANITE,
    "ibm-granite-granite-4.0": _GRANITE,
    "ibm-granite-granite-4.1": _GRANITE,
    "inclusionai-ling-3.0-flash": Format(("<role>ASSISTANT</role>\n<think>",), "<|role_end|>"),
    "llama-cpp-rwkv-world": Format(("Assistant:",), "\n\n"),
    "meetkai-functionary-medium-v3.1": Format(_LLAMA.headers, "<|eot_id|>", call="<|eom_id|>"),
    "meetkai-functionary-medium-v3.2": Format((_LLAMA.headers[0] + ">>>",), "<|eot_id|>"),
    "meta-llama-Llama-3.1-8B-Instruct": _LLAMA,
    "meta-llama-Llama-3.2-3B-Instruct": _LLAMA,
    "meta-llama-Llama-3.3-70B-Instruct": _LLAMA,
    "microsoft-Phi-3.5-mini-instruct": Format(("<|assistant|>\n",), "<|end|>"),
    "mistralai-Ministral-3-14B-Reasoning-2512": _INST,
    "mistralai-Mistral-Nemo-Instruct-2407": _INST,
    "muse-glimmer": Format(("<|start|>assistant",), "<|eot|>"),
    "openai-gpt-oss-120b": Format(("<|start|>assistant",), "<|end|>", "<|return|>", "", "<|call|>"),
    "openbmb-MiniCPM5-1B": _CHATML,
    "tencent-Hy3": Format(
        ("<｜hy_Assistant:opensource｜><think:opensource></think:opensource>",),
        "<｜hy_eos:opensource｜>",
        "",
    ),
    "unsloth-Apriel-1.5": Format(("<|assistant|>\n",), "\n<|end|>\n" + _EOS),
    "unsloth-mistral-Devstral-Small-2507": _INST,
    "upstage-Solar-Open-100B": Format(("<|begin|>assistant",), "<|end|>", call="<|calls|>"),
}
_OFFERED = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}
_CALL = {"function": {"name": "weather", "arguments": {"city": "Bonn"}}, "type": "function"}


def _chat(*said: str, system: str | None = None) -> list[dict[str, Any]]:
    roles = ["user", "assistant"] * len(said)
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]


def _tools(said: str) -> list[dict[str, Any]]:
    call = {"role": "assistant", "content": said, "tool_calls": [{**_CALL, "id": "abcdefgh1"}]}
    result = {"role": "tool", "content": "sunny", "tool_call_id": "abcdefgh1", "name": "weather"}
    return [
        *_chat("Weather?"),
        call,
        result,
        {"role": "assistant", "content": "It is sunny."},
        *_chat("Thanks.", "You are welcome."),
    ]


_THOUGHT = "<think>\nlet me see\n</think>\n\n"
SHAPES: dict[str, Sequence[list[dict[str, Any]]]] = {
    "single": [_chat("Hi", "Hello there."), _chat("a", "e"), _chat("Write HTML", "<html>x</html>")],
    "multi": [_chat("Hi", "Hello.", "And?", "No.", "Why?", "So."), _chat("x", "y", "x", "y")],
    "system": [_chat("Hi", "Hello.", "And?", "No.", system="Be brief.")],
    "unicode": [_chat("Ein 🦜?", "日本語, 🏳️‍🌈 ü e\u0301.", "नमस्ते", "مرحبا 👋🏽")],
    "empty turn": [_chat("Hi", "", "And?", "No."), _chat("Hi", "Yes", "And?", "")],
    "thinking": [_chat("Hi", _THOUGHT + "One.", "And?", _THOUGHT + "Two.")],
    "tools": [_tools(""), _tools("Let me look.")],
    "blanks": [_chat("Hi ", "  One.", " x", "Two. \n", "y", "\n\nThree.\n\n")],
    "tool list": [
        Conversation(_chat("Hi", "Hello.", "And?", "No.", system=system), [_OFFERED])
        for system in (None, "Be brief.")
    ]
    + [Conversation(_tools(""), [_OFFERED])],
}


def _spans_by_format(
    text: str, form: Format, messages: list[dict[str, Any]], eos: str
) -> list[Span] | None:
    """Read off the text with the hand-checked table; None if there are more or fewer answers."""
    answers = [message for message in messages if message["role"] == "assistant"]
    spans: list[Span] = []
    place = 0
    for number, message in enumerate(answers):
        start, is_last = _next_header(text, form, place), number == len(answers) - 1
        if start is None:
            return None
        ending = form.end if not is_last or form.last is None else form.last
        if message.get("tool_calls"):
            # calls may hold the ending too: the last one before the tool's result counts
            ending = (form.call or form.end or "").replace(_EOS, eos)
            found = text.rfind(ending, start, text.find("sunny", start)) if ending else -1
            end = found + len(ending) if found != -1 else -1
        elif ending:
            found = text.find(ending.replace(_EOS, eos), start)
            end = found + len(ending.replace(_EOS, eos)) if found != -1 else -1
            if form.question and start <= text.find(form.question, start) < found:
                end = text.find(form.question, start)  # an empty turn that is not ended
        else:
            end = len(text) if is_last else text.find(form.question, start)
        if end == -1:
            return None
        spans.append((start, end))
        place = end
    return spans if _next_header(text, form, place) is None else None


def _next_header(text: str, form: Format, place: int) -> int | None:
    at = text.find(form.headers[-1], place)
    others = [text.find(other, place) for other in form.also]
    if any(other != -1 and (at == -1 or other < at) for other in others):
        at = min(other for other in others if other != -1)
        return next(at + len(other) for other in form.also if text.startswith(other, at))
    if at == -1:
        return None
    return next(at + len(header) for header in form.headers if text.startswith(header, at))


def _spans_by_marks(template: str, messages: list[Any], variables: dict[str, Any]) -> list[Span]:
    """Read off the template's own marks by transformers."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template(
        conversations=[messages],
        chat_template=template,
        return_assistant_tokens_mask=True,
        **variables,
    )
    return [(start, end) for start, end in rendered[1][0]]


def _labels(ids: list[int], offsets: list[Span], spans: list[Span]) -> list[int]:
    """A token is learnt if its first character is: one character at a time, so slowly."""
    learnt = {place for start, end in spans for place in range(start, end)}
    labels = []
    for index, (first, _) in zip(ids, offsets, strict=True):
        labels.append(index if first in learnt else MASKED)
    return labels


def _cases(data: Path) -> Iterator[tuple[str, str, Format | None]]:
    """(name, template, format or None if marks are the reference)."""
    for entry in TEMPLATES:
        if entry.text is not None:
            yield f"ours: {entry.name}", entry.text, None
    for path in sorted((data / "chat_templates").glob("*.jinja")):
        text = path.read_text(encoding="utf-8")
        form = FORMATS.get(path.stem)
        if form is not None or "endgeneration" in text:
            yield path.stem, text, form


def check(
    tokenizer: Any, name: str, template: str, form: Format | None, *, marks: bool
) -> Iterator[tuple[str, str]]:
    """(shape, "agrees", "refused", "not comparable" or what differs) of every conversation.

    Args:
        marks: let the code under test see the template's `{% generation %}` marks.
    """
    seen = template if marks else without_generation_marks(template)
    speaking = get_chat_template(tokenizer, seen, map_eos_token=False)
    encoder = Encoder(speaking)
    variables = dict(speaking.special_tokens_map)
    for shape, chats in SHAPES.items():
        for messages in chats:
            try:
                encoded = encoder(messages)
            except TemplateInvalid as error:
                unproved = error.what.startswith("It cannot be told")
                yield shape, f"unproved: {error.why}" if unproved else "refused"
                continue
            if form is None:
                tools = getattr(messages, "tools", None)
                spans: list[Span] | None = _spans_by_marks(
                    template, messages, {**variables, "tools": tools}
                )
            else:
                eos = str(speaking.eos_token)
                spans = _spans_by_format(encoded.text, form, messages, eos)
            if spans is None:
                yield shape, "not comparable"
                continue
            wanted = _labels(encoded.input_ids, encoded.offsets, spans)
            if encoded.labels == wanted:
                yield shape, "agrees"
            else:
                ours = [encoded.text[s.start : s.end] for s in encoded.spans if s.trained]
                yield shape, f"{ours} instead of {[encoded.text[a:b] for a, b in spans]}"


def load_tokenizers(data: Path, folder: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Real tokenizers by name."""
    from transformers import AutoTokenizer

    found = {}
    for archive in sorted((data / "tokenizers").glob("*.tar.xz")):
        name = archive.name.removesuffix(".tar.xz")
        if names is None or name in names:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            found[name] = AutoTokenizer.from_pretrained(folder / name)
    return found


def main() -> int:
    """Print the table; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="two tokenizers only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    by_shape: dict[str, Counter[str]] = {shape: Counter() for shape in SHAPES}
    by_template: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        names = ["qwen2.5", "llama-2"] if options.quick else None
        tokenizers = load_tokenizers(options.data, Path(folder), names)
        for name, template, form in _cases(options.data):
            row = by_template.setdefault(name, Counter())
            for marks in (True, False) if name.startswith("ours") else (True,):
                for tokenizer_name, tokenizer in tokenizers.items():
                    for shape, result in check(tokenizer, name, template, form, marks=marks):
                        short = result if result in _FINE else "differs"
                        row[short] += 1
                        by_shape[shape][short] += 1
                        if short == "differs":
                            how = "" if marks else " (marks hidden)"
                            wrong.append(f"{name}{how} x {tokenizer_name} x {shape}: {result}")
    _print(by_template, by_shape, len(tokenizers), wrong)
    if options.json:
        options.json.write_text(
            json.dumps({"templates": by_template, "shapes": by_shape}, indent=1)
        )
    return 1 if wrong else 0


_FINE = ("agrees", "refused", "not comparable")


def _print(
    templates: dict[str, Counter[str]],
    shapes: dict[str, Counter[str]],
    tokenizers: int,
    wrong: list[str],
) -> None:
    columns = [*_FINE, "differs"]
    for title, rows in (("template", templates), ("shape", shapes)):
        print(f"| {title} | " + " | ".join(columns) + " |")
        print("| --- |" + " ---: |" * len(columns))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
        print()
    total: Counter[str] = sum(shapes.values(), Counter())
    share = total["agrees"] / max(1, total["agrees"] + total["differs"])
    print(f"{len(templates)} templates, {tokenizers} tokenizers, {total.total()} conversations:")
    print(", ".join(f"{total[column]} {column}" for column in columns))
    print(f"agreement: {share:.2%}")
    for line in list(dict.fromkeys(wrong))[:40]:
        print(line[:600], file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
