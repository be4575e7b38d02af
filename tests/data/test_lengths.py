"""What every maximum length costs is counted exactly."""

from __future__ import annotations

import random
from typing import Any

from tunebook.data import encode_text, token_view
from tunebook.data.lengths import LengthTally
from tunebook.models.loading import load_tokenizer
from tunebook.recipe import Recipe


def tally_of(rows: list[tuple[int, list[tuple[int, int]]]]) -> LengthTally:
    tally = LengthTally()
    for length, learnt in rows:
        tally.add(length, learnt)
    return tally


def random_rows(seed: int) -> list[tuple[int, list[tuple[int, int]]]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(200):
        length = chance.choice([chance.randint(1, 40), chance.randint(1, 900)])
        edges = sorted(chance.sample(range(length + 1), min(length + 1, 4)))
        rows.append((length, [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]))
    return rows


def test_a_cut_is_what_counting_token_by_token_gives() -> None:
    rows = random_rows(3)
    tally = tally_of(rows)
    for limit in (1, 2, 8, 40, 333, 899, 5000):
        learnt = [[at for a, b in spans for at in range(a, b)] for _, spans in rows]
        cut = tally.cut_at(limit)
        assert cut.cut == sum(length > limit for length, _ in rows)
        assert cut.lost == sum(max(0, length - limit) for length, _ in rows)
        assert cut.lost_trained == sum(at >= limit for spans in learnt for at in spans)
        assert cut.rows == sum(any(0 < at < limit for at in spans) for spans in learnt)
        assert cut.rows + cut.left_out == len(rows)


def test_every_row_is_in_one_bin_and_the_limit_is_a_stop() -> None:
    for rows in (random_rows(4), [(30, [(5, 30)])] * 7, [(1, [(0, 1)]), (90_000, [(2, 9)])]):
        view = tally_of(rows).view(777)
        assert view is not None
        assert sum(count for _, _, count in view.bins) == len(rows)
        assert all(start < end for start, end, _ in view.bins)
        limits = [stop.limit for stop in view.stops]
        assert limits == sorted(set(limits))
        assert 777 in limits
        assert limits[-1] >= view.longest
        assert len(limits) < 300
        assert len(view.bins) <= 42


def test_one_very_long_row_asks_for_a_logarithmic_axis() -> None:
    rows = [(100, [(50, 100)])] * 50
    assert not tally_of(rows).view(128).logarithmic  # type: ignore[union-attr]
    assert tally_of([*rows, (9000, [])]).view(128).logarithmic  # type: ignore[union-attr]
    assert LengthTally().view(128) is None


def test_the_places_of_a_row_are_made_once_for_its_token_view(monkeypatch: Any) -> None:
    """They are as many as the row has tokens: made for every cell, a long row takes minutes."""
    tokenizer = load_tokenizer(Recipe().model)
    encoded = encode_text(tokenizer, "word " * 50)
    made: list[int] = []
    every = encoded.offsets
    monkeypatch.setattr(type(encoded), "offsets", property(lambda _: made.append(1) or every))
    assert len(token_view(tokenizer, encoded).tokens) > 50
    assert len(made) == 1
