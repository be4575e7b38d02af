"""A language is named only where it is certain, and a few rows in another one are found."""

from __future__ import annotations

import pytest

from tunebook.data import check
from tunebook.data.languages import language

TEXTS = {
    "English": "The model reads the rows that you give it, and it learns what stands in them. Rows "
    "with an empty answer are left out, which you can see in the table of the data.",
    "German": "Das Modell liest die Zeilen, und es lernt, was in ihnen steht. Zeilen mit einer leeren "
    "Antwort werden nicht genommen, wie man auf der Seite sehen kann, aber das ist auch gewollt.",
    "French": "Le modèle lit les lignes que vous lui donnez dans le fichier, et il apprend ce qui est "
    "écrit. Les lignes avec une réponse vide ne sont pas prises, mais cette règle est utile.",
    "Spanish": "El modelo lee las filas del archivo y aprende lo que hay en los textos. Las filas con "
    "una respuesta vacía no se usan, pero también puede cambiar esto porque es muy fácil.",
    "Portuguese": "O modelo lê os dados e aprende com eles, mas não usa os que são vazios. Você também "
    "pode mudar isso em um momento, pelo menos uma vez, e muito mais vezes ao fim dos dias.",
    "Italian": "Il modello legge le righe che gli sono date e non usa quelle vuote. Questo può essere "
    "cambiato, anche per il file che è nel folder della casa, con più dati di prima.",
    "Dutch": "Het model leest de rijen van het bestand en leert wat er in staat. Rijen met een leeg "
    "antwoord worden niet gebruikt, maar deze regel kan ook worden veranderd voor het einde.",
    "Polish": "Model czyta dane i nie zmienia tego, co jest w tekście. Puste odpowiedzi nie są brane, "
    "ale można to zmienić, jak się chce, dla każdego pliku, który jest oraz może być nowy.",
    "Cyrillic": "Модель читает строки и учится тому, что в них написано, а пустые ответы пропускает.",
    "Chinese or Japanese": "モデルは行を読み、そこに書かれていることを学習します。空の回答は使われません。",
    "Korean": "모델은 행을 읽고 거기에 쓰인 것을 배웁니다. 빈 답변은 사용되지 않습니다.",
    "Arabic": "يقرأ النموذج الصفوف ويتعلم ما هو مكتوب فيها ولا يستخدم الإجابات الفارغة.",
}


@pytest.mark.parametrize("name", TEXTS)
def test_languages_are_told(name):
    assert language(TEXTS[name]) == name
    if name not in ("English", "Cyrillic", "Chinese or Japanese", "Korean", "Arabic"):
        assert language(TEXTS[name] + " " + TEXTS["English"]) is None, "two languages in one row"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes.",
        "Что?",
        "def f(x):\n    return [y for y in x if y is not None]\n" * 20,
        "1 2 3 4 " * 100,
        "🦜" * 100,
        "Translate into Japanese: the model reads the rows. " + "行を読みます。" * 5,
        "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor " * 5,
    ],
)
def test_nothing_is_said_where_it_is_unsure(text):
    assert language(text) is None


def rows(*counts: tuple[str, int]) -> list[dict[str, str]]:
    return [
        {"prompt": f"{number} {TEXTS[name]}", "completion": TEXTS[name]}
        for name, count in counts
        for number in range(count)
    ]


def found(given: list[dict[str, str]]) -> list[tuple[int, list[int], str]]:
    report = check(given, near_duplicates=False)
    findings = [f for f in report.findings if f.code == "other_language"]
    return [(f.count, f.examples, f.severity) for f in findings]


def test_a_few_rows_in_another_language_are_found():
    given = rows(("English", 30), ("German", 1), ("Cyrillic", 1))
    assert found(given) == [(2, [30, 31], "info")]
    title = next(
        f.title for f in check(given, near_duplicates=False).findings if f.code == "other_language"
    )
    assert "German (1), Cyrillic (1) amid English" in title


def test_many_languages_are_meant():
    assert found(rows(("English", 30), ("German", 10))) == []
    assert found(rows(("English", 30))) == []
    assert found(rows(("English", 5), ("German", 1))) == []
