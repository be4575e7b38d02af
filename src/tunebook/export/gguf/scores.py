"""Scores of SentencePiece-like vocabularies, rebuilt from the order of their merges.

llama.cpp's SPM tokenizer joins the neighbours whose joint piece has the highest score, as
SentencePiece does; tokenizer.json has merges by rank instead. The piece that is made first gets the
highest score. Knows no special tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

UNREACHED = -1e9  # of what no merge makes; SentencePiece's own for runs of blanks


def scores_from_merges(
    pieces: Mapping[str, int], merges: Iterable[tuple[str, str]]
) -> dict[int, float]:
    """A score for every id: -1, -2, … in the order in which merges make the pieces.

    For SentencePiece's own vocabularies these are -(id - 259), as in the model file, but for runs
    of blanks: there they share one score, here they keep their rank, which is what was trained.
    Single characters, which are never the outcome of a join, follow in the order of their ids.

    Args:
        pieces: id by piece.
        merges: pairs of pieces, the first to be applied first.
    """
    scores: dict[int, float] = {}
    for left, right in merges:
        index = pieces.get(left + right)
        if index is not None and index not in scores:
            scores[index] = -float(len(scores) + 1)
    for piece, index in sorted(pieces.items(), key=lambda item: item[1]):
        if len(piece) == 1 and index not in scores:
            scores[index] = -float(len(scores) + 1)
    return {index: scores.get(index, UNREACHED) for index in pieces.values()}
