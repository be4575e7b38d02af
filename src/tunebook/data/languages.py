"""The language or script of a text, where a few signs make it certain; else nothing is said.

Scripts are told by the names of letters, languages in Latin letters by their commonest words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_READ = 2000  # characters of a text that are looked at
_LETTERS = 20
_WORDS = 25
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "CJK": "Chinese or Japanese",
    "HIRAGANA": "Chinese or Japanese",
    "KATAKANA": "Chinese or Japanese",
    "HANGUL": "Korean",
}
_COMMON = {
    "English": "the and of that you with this are have not which from they would what can your will",
    "German": "der das und ist nicht ein eine mit auf für dem sich auch werden wird wie kann aber oder",
    "French": "le les des est une dans pour qui sur pas avec vous nous sont cette mais aux être ces",
    "Spanish": "el los las y más pero del puede también muy hay según esto estos cómo porque hacer",
    "Portuguese": "não uma em são você também muito isso pelo os ao dos um pela mas seu seus foi",
    "Italian": "il di che è non per gli della sono più anche questo nel dei alla può delle essere",
    "Dutch": "het een van niet zijn voor dat met wordt ook maar aan deze naar bij worden hij kunnen",
    "Polish": "nie się jest że jak dla są przez jako ale może tego jego oraz które który można",
}
_LISTED = Counter(word for words in _COMMON.values() for word in words.split())
_LANGUAGE_OF = {
    word: name for name, words in _COMMON.items() for word in words.split() if _LISTED[word] == 1
}


def language(text: str) -> str | None:
    """The language or script that most of a text is certainly written in; None if that is unsure."""
    text = text[:_READ]
    if not text.isascii():
        scripts = Counter(_script(letter) for letter in text if letter.isalpha())
        script, count = scripts.most_common(1)[0] if scripts else ("", 0)
        if count < max(_LETTERS, 0.6 * scripts.total()):
            return None
        if script != "Latin":
            return script
    words = _WORD.findall(text.lower())
    if len(words) < _WORDS:
        return None
    found = Counter(_LANGUAGE_OF[word] for word in words if word in _LANGUAGE_OF)
    (name, count), (_, second) = [*found.most_common(2), ("", 0), ("", 0)][:2]
    return name if count >= 0.1 * len(words) and count >= 4 * second else None


@lru_cache(maxsize=20_000)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    return _SCRIPTS.get(first, first.capitalize())
