"""Texts that are probably not meant: damaged encodings, keys, personal data, special tokens.

Patterns over plain text; this module knows no rows, and tells no secret that it finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_REPLACEMENT = "\ufffd"
# UTF-8 read as Latin-1 or Windows-1252: a lead byte's letter, then a continuation byte's sign.
_MOJIBAKE = re.compile(
    r"[ÃÂ][\u0080-\u00bf]|â(?:€[\u0080-\u00bf™œ\u009d“”˜¦]|\u0080[\u0080-\u00bf])"
    r"|ð(?:Ÿ[\u0080-\u00ff‘’“”–—˜™š›œžŸ„…†‡ˆ‰Š‹Œ€‚ƒ]|\u009f[\u0080-\u00bf])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SECRETS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]*?(?:-----END|$)"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "an API key": re.compile(r"\b(?:sk|pk|rk)[-_](?:[a-z]+[-_])*[A-Za-z0-9]{20,}\b"),
    "a Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
}
_PERSONAL = {
    "an e-mail address": re.compile(
        r"\b[A-Za-z0-9._%+-]{1,64}@(?!example\.)(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b"
    ),
    "a card number": re.compile(r"\b(?:\d[ -]?){13,18}\d\b"),
    "a bank account (IBAN)": re.compile(
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"
    ),
}


def damage(text: str) -> str | None:
    """What is damaged in a text, or None."""
    if text.isascii():
        return "control characters" if _CONTROL.search(text) else None
    if _REPLACEMENT in text:
        return "the replacement character \ufffd"
    if found := _MOJIBAKE.search(text):
        return f"`{found[0]}` (UTF-8 read as Latin-1)"
    if _CONTROL.search(text):
        return "control characters"
    return None


def mended(text: str) -> str:
    """The text with wrongly read UTF-8 read rightly, if all of it can be; control signs taken out."""
    if _MOJIBAKE.search(text):
        for encoding in ("cp1252", "latin-1"):
            try:
                text = text.encode(encoding).decode("utf-8")
                break
            except (UnicodeEncodeError, UnicodeDecodeError):
                continue
    return _CONTROL.sub("", text)


def secret(text: str) -> str | None:
    """What kind of key or password a text holds, or None."""
    return next((kind for kind, pattern in _SECRETS.items() if pattern.search(text)), None)


def personal(text: str) -> str | None:
    """What kind of personal data a text holds, or None."""
    if "@" in text and _PERSONAL["an e-mail address"].search(text):
        return "an e-mail address"
    for kind in ("a card number", "a bank account (IBAN)"):
        if any(_checked(kind, found[0]) for found in _PERSONAL[kind].finditer(text)):
            return kind
    return None


def hidden(text: str) -> str:
    """The text with keys and personal data replaced by their kind in brackets."""
    for kind, pattern in {**_SECRETS, **_PERSONAL}.items():
        mark = f"[{kind.split(' ', 1)[1]}]"
        text = pattern.sub(lambda m, k=kind, w=mark: w if _checked(k, m[0]) else m[0], text)  # type: ignore[misc]
    return text


def token_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the text of any special token; None if there is none that could stand in a text."""
    known = [t for t in {*tokens, *COMMON_TOKENS} if len(t) > 2]
    return re.compile("|".join(re.escape(t) for t in sorted(known, key=len, reverse=True)))


# Of the families that data is most often made for; looked for where no tokenizer is at hand too.
COMMON_TOKENS = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>"),
    *("<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|user|>", "<|assistant|>"),
]


def _checked(kind: str, text: str) -> bool:
    """Whether the check digits of a number agree; true for what has none."""
    if kind == "a card number":
        digits = [int(sign) for sign in text if sign.isdigit()]
        doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
        return digits[0] in (3, 4, 5, 6) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    if kind == "a bank account (IBAN)":
        plain = text.replace(" ", "")
        turned = plain[4:] + plain[:4]
        return int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1
    return True
