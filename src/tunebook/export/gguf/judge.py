"""llama.cpp itself, asked about a GGUF: its token ids, its prompt for a conversation, its answers.

It is llama-server, from the optional package xllamacpp. Knows HTTP and JSON;
knows nothing of how the file was made.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tunebook.errors import ExtraMissing, FileInvalid, TemplateInvalid
from tunebook.export.gguf.battery import Case, cases

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORCED = 1e6  # added to a logit, that token is chosen
_SECONDS = 120  # for one answer; a model on a CPU may be slow


def can_judge() -> bool:
    """Whether llama.cpp is there to be asked."""
    return find_spec("xllamacpp") is not None


class LlamaServer:
    """A GGUF file, loaded by llama.cpp on the CPU; use it in a `with`, or `close` it.

    It runs in a process of its own: llama.cpp ends a process that gives it a file it cannot bear.

    Args:
        context: tokens of a prompt and its answer together.
        threads: for computing.
        projector: the file with the vision tower of a model that sees.

    Raises:
        ExtraMissing: xllamacpp is not installed.
        FileInvalid: llama.cpp does not load the file.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        context: int = 512,
        threads: int = 2,
        projector: Path | str | None = None,
    ) -> None:
        if not can_judge():
            raise ExtraMissing(
                "There is no llama.cpp here to open the file with.",
                "the package xllamacpp is not installed.",
                "run `pip install xllamacpp`, or try the file in llama.cpp or Ollama.",
            )
        script = Path(__file__).with_name("judge_process.py")
        asked = [str(part) for part in (path, context, threads, projector or "")]
        command = [sys.executable, "-P", str(script), *asked]
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
            said = _first_line(self._process, log)
        if "address" not in said:
            self.close()
            raise FileInvalid(
                f"llama.cpp does not load {Path(path).name}.",
                said.get("error") or "it gives no reason.",
                "export it again; if it fails again, report it with `tunebook doctor`'s output.",
            )
        self._address = said["address"]
        self._harmless: int | None = None

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the model go."""
        self._process.kill()
        self._process.communicate()

    def token_ids(
        self, text: str, *, parse_special: bool = True, around: bool = False
    ) -> list[int]:
        """The ids that llama.cpp gives a text.

        Args:
            parse_special: find special tokens in it.
            around: with the start and end tokens that the file asks for.
        """
        asked = {"content": text, "add_special": around, "parse_special": parse_special}
        ids: list[int] = self.ask("/tokenize", asked)["tokens"]
        return ids

    def prompt(self, messages: list[dict[str, Any]], **variables: Any) -> str:
        """A conversation as the file's chat template writes it, ready for an answer.

        llama.cpp leaves out a start token that it puts before the ids itself.

        Args:
            variables: for the template, such as `enable_thinking`.

        Raises:
            TemplateInvalid: llama.cpp's Jinja does not render it.
        """
        asked = {"messages": messages, "chat_template_kwargs": variables}
        try:
            text: str = self.ask("/apply-template", asked)["prompt"]
        except urllib.error.HTTPError as error:
            raise TemplateInvalid(
                "llama.cpp cannot run the chat template.",
                error.read().decode(errors="replace")[:500],
                "set `model.chat_template` to a named template that writes the same.",
            ) from error
        return text

    def next_token(self, ids: Sequence[int], *, top: int) -> dict[int, float]:
        """Log-probabilities of the likeliest tokens behind `ids`, by id.

        Args:
            top: how many.
        """
        if self._harmless is None:
            self._harmless = self.token_ids("a")[0]
        # an answer that ends amid a character comes without its probabilities, so another is forced;
        # they are those of before
        asked = {"prompt": list(ids), "n_predict": 1, "temperature": 0, "n_probs": top}
        asked["logit_bias"] = [[self._harmless, _FORCED]]
        (place,) = self.ask("/completion", asked)["completion_probabilities"]
        return {token["id"]: token["logprob"] for token in place["top_logprobs"]}

    def answer_to_picture(
        self, messages: list[dict[str, Any]], *, tokens: int, top: int
    ) -> list[tuple[int, dict[int, float]]]:
        """Its greedy answer, token by token, each with the likeliest ones' log-probabilities.

        Args:
            messages: a conversation as OpenAI's API has it; `picture_part` makes a part of a picture.
            top: how many of the likeliest.
        """
        asked = {"messages": messages, "temperature": 0, "max_tokens": tokens}
        asked |= {"logprobs": True, "top_logprobs": top}
        choice = self.ask("/v1/chat/completions", asked)["choices"][0]
        return [
            (place["id"], {token["id"]: token["logprob"] for token in place["top_logprobs"]})
            for place in choice["logprobs"]["content"]
        ]

    def answer(self, messages: list[dict[str, Any]], *, tokens: int) -> tuple[str, str]:
        """Its greedy answer, and why it ended: "stop" or "length"."""
        asked = {"messages": messages, "temperature": 0, "max_tokens": tokens}
        choice = self.ask("/v1/chat/completions", asked)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    def ask(self, where: str, what: dict[str, Any]) -> dict[str, Any]:
        """The JSON that an endpoint of llama-server answers.

        Raises:
            urllib.error.HTTPError: it refuses.
        """
        request = urllib.request.Request(
            self._address + where,
            json.dumps(what).encode(),
            {"Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine
        with direct.open(request, timeout=_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def picture_part(picture: bytes) -> dict[str, Any]:
    """A part of a message that shows a picture.

    Args:
        picture: a PNG file.
    """
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _first_line(process: subprocess.Popen[bytes], log: IO[bytes]) -> dict[str, str]:
    """What the process says when the model is loaded, or the end of its log if it died."""
    assert process.stdout is not None
    said: dict[str, str] = {}
    for line in process.stdout:
        if line.startswith(b'{"'):
            said = json.loads(line)
            break
    if "address" in said:
        return said
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    named = [line for line in lines if line.startswith("Error: ")]
    return {"error": named[-1].removeprefix("Error: ") if named else "\n".join(lines[-5:])}


def other_ids(
    server: LlamaServer, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[Case, list[int]]]:
    """The texts of the battery to which llama.cpp gives other ids, with those; should be empty."""
    found = []
    for case in cases(tokenizer):
        ids = server.token_ids(case.text, parse_special=case.parse_special)
        if ids != case.ids:
            found.append((case, ids))
    return found
