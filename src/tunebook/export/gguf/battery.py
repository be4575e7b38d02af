"""Texts on which tokenizers differ, for the check that a written vocabulary is the trained one.

Knows tokenizers as far as to ask for ids; knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.export.gguf.blanks import blanks_of
from tunebook.export.gguf.pretokenizers import flat_parts, known_difference, stage_of
from tunebook.export.gguf.special_tokens import SHOWN, is_control

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t",
    "\t\t\tx",
    " \n \n\n  \n",
    "\r\n line ends \r\n\r\n of Windows\r",
    "Hello",
    " Hello",
    "   Hello   world   ",
    "Hello, world! How are you?",
    "UPPER lower MiXeD CamelCase snake_case kebab-case",
    "ends with a blank ",
    "ends with a line end\n",
    "I've they'll he'D WE'RE it's 'tis can't rock'n'roll",
    "0 1 12 123 1234 12345 123456 1234567890 3.14159 1,000,000 1e-9 0xFF ½ ² Ⅷ ١٢٣ १२३",
    "2+2=4; a<b && c>=d || !e ? f : g -> h => i",
    "!!! ??? ... --- === *** ### @@@ $$$ %%% ^^^ &&& ((())) [[[]]] {{{}}} ~~~ ``` \\\\\\ ///",
    "def f(x: int) -> int:\n    if x > 0:\n        return f(x - 1) * 2\n\treturn 1  # done\n",
    'for (let i = 0; i < n; i++) {\n  console.log(`${i}: "${a[i]}"`);\n}\n',
    "<html>\n  <body class='x'>&nbsp;&lt;</body>\n</html>",
    "SELECT * FROM t WHERE a='b' -- comment\n",
    "https://example.com/path?q=1&r=%20#fragment user@example.org C:\\dir\\file.txt",
    '{"key": [1, 2.5, null, true], "nested": {"a": "\\n"}}',
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n- item\n  - item\n\n> quote\n\n**bold** _it_ $x^2$",
    "Ünïcödé façade naïve Straße Ærøskøbing žluťoučký kůň İstanbul ǅ",
    "Ελληνικά: Η γρήγορη αλεπού. Русский: съешь ещё этих булок. Українська: ґанок",
    "中文：快速的棕色狐狸。日本語：速い茶色の狐がカタカナ。한국어: 빠른 갈색 여우",
    "我想在apple工作1314151天～，对吗？「引用」—— ……",
    "العربية: الثعلب البني السريع، ١٢٣؟ עברית: השועל החום. فارسی می‌خواهم",
    "हिन्दी: तेज़ भूरी लोमड़ी। ไทย: สุนัขจิ้งจอก தமிழ்: விரைவான ខ្មែរ: កាន់តែពិសេស বাংলা",
    "q̃ x̧̌ n̈ ä́ Z͑ͫa̷l̴g̸o",
    "e\u0301 a\u030a decomposed; e\u0301\u0327 two marks; \u1100\u1161\u11a8",
    "🚀 😶‍🌫️ 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ✅ 🦙🦙 ☃️ ♥",
    "𝕬𝖇𝖈 𐍈 𠀀 🀄 ﷽ ﬁ ℌ",
    "zero\u200bwidth\u200djoiner\u2060 no\u00a0break\u3000ideographic\u2003em\u2028line\ufeff",
    "control \x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x85 characters",
    "a" * 80 + "b" * 40 + "ab" * 20,
    "\n".join(" " * n + "x" for n in range(1, 36)),
    "\n".join("\n" * n + "y" for n in range(1, 9)),
    "-" * 70 + "=" * 33 + "." * 17 + "!" * 5,
    "ﾊﾝｶｸ ＦＵＬＬ　ｗｉｄｔｈ ①②③ ㎏ Å K",
    "_underscores__ ▁ lower one eighth block ▁▁ Ġ Ċ characters that vocabularies use inside",
    "1. First\n2. Second\n\n   Third…\n\t\t- tabs\n\n\n\nThe end.",
)


def text_battery() -> list[str]:
    """Texts of every kind: blanks, digits, code, scripts, marks, emoji, control characters."""
    return list(_TEXTS)


def special_battery(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that hold the tokenizer's own added tokens: alone, in words, with and without blanks."""
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: item[1])
    names = [text for text, _ in added]
    # Hundreds of reserved tokens behave alike: the first, the last and those with a role stand in.
    chosen = list(dict.fromkeys([*names[:12], *tokenizer.all_special_tokens, *names[-4:]]))
    texts = [f"before{name}after" for name in chosen]
    texts += [f"{name} blank{name}\nline{name}" for name in chosen]
    return [*texts, "".join(chosen), " ".join(chosen), *(name[:-1] for name in chosen if name[1:])]


@dataclass(frozen=True)
class Case:
    """A text and the ids that the tokenizer gives it, without any start or end token.

    `parse_special`: special tokens are found in the text, as in a rendered conversation; else they
    are words like others, as in what a user types.
    """

    text: str
    parse_special: bool
    ids: list[int]


def cases(tokenizer: PreTrainedTokenizerBase) -> list[Case]:
    """The whole battery with the ids of the tokenizer that was trained with.

    Where llama.cpp is known to differ by itself, the text is one on which it need not: in composed
    characters, without those tokens that only llama.cpp takes for special ones, with blanks only
    where both put them, and without what a pre-tokenizer of it cuts otherwise. `Vocabulary.notes`
    say so to the user.
    """
    texts = [composed(tokenizer, text) for text in text_battery() + special_battery(tokenizer)]
    difference = known_difference(stage_of(tokenizer, "pre_tokenizer"))
    if difference is not None:
        texts = [text for text in texts if not difference.concerns(text)]
    blanks = blanks_of(tokenizer)
    if blanks is not None:
        adapted = (blanks.comparable(text, tokenizer) for text in texts)
        texts = [text for text in adapted if text is not None]
    found = [Case(text, True, _ids(tokenizer, text, split=False)) for text in texts]
    if blanks is not None and blanks.scheme == "first":
        return found  # without special tokens there is no place where both put a blank
    judged_otherwise = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special != is_control(token.content, special=token.special)
        or (token.special and token.content in SHOWN)
    ]
    return found + [
        Case(text, False, _ids(tokenizer, text, split=True))
        for text in texts
        if not any(token in text for token in judged_otherwise)
    ]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, split: bool) -> list[int]:
    out = tokenizer(text, add_special_tokens=False, split_special_tokens=split, verbose=False)
    ids: list[int] = out["input_ids"]
    return ids


def composed(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text as far normalised (NFC, …) as the tokenizer does it before it cuts words.

    llama.cpp normalises nothing for BPE, so a text that this changes has other ids there. What
    stands for blanks inside the vocabulary is no normalisation.
    """
    from tokenizers import normalizers

    for part in flat_parts(stage_of(tokenizer, "normalizer")):
        if part["type"] in ("NFC", "NFKC", "NFD", "NFKD"):
            text = getattr(normalizers, part["type"])().normalize_str(text)
    return text
