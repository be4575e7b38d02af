"""The builder of the vision model that ships inside: its pictures, batches, forward and training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunebook.latex import in_test_split
from tunebook.latex.grammar import SIGNS
from tunebook.models.embedded_vision.build import tokenizer as chat
from tunebook.models.embedded_vision.build.batched import (
    grid_of,
    hidden_states_of,
    patches_of,
    read,
    tower,
)
from tunebook.models.embedded_vision.build.batches import Shelf, cells, prompts
from tunebook.models.embedded_vision.build.evaluate import answers, by_length
from tunebook.models.embedded_vision.build.model import MAX_PIXELS, MIN_PIXELS, new_model
from tunebook.models.embedded_vision.build.pictures import (
    Pictures,
    first,
    first_signs,
    make_pictures,
    read_pictures,
    write_pictures,
)
from tunebook.models.embedded_vision.build.train import Lines, Schedule, losses, train


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    pytest.importorskip("matplotlib")
    made = make_pictures(60, 20, seed=3, levels=(1, 2), workers=1, styles=2)
    return made


@pytest.fixture(scope="module")
def tokenizer(pictures: Pictures) -> Any:
    return chat.train_tokenizer(pictures.formulas)


@pytest.fixture(scope="module")
def shelf(pictures: Pictures, tokenizer: Any) -> Shelf:
    return Shelf(pictures, tokenizer, "cpu")


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return new_model(tokenizer, seed=0).eval()


def test_no_picture_of_the_test_split_is_trained_on(pictures: Pictures) -> None:
    train, test = pictures.formulas[: -pictures.test], pictures.formulas[-pictures.test :]
    assert len(test) == 20
    assert not set(train) & set(test)
    assert all(map(in_test_split, test))
    assert train[:-60] == first_signs(3, 2)


def test_the_file_gives_back_what_was_written(pictures: Pictures, tmp_path: Path) -> None:
    write_pictures(pictures, tmp_path / "pictures.xz")
    back = read_pictures(tmp_path / "pictures.xz")
    assert (back.formulas, back.test) == (pictures.formulas, pictures.test)
    np.testing.assert_array_equal(back.sizes, pictures.sizes)
    np.testing.assert_array_equal(back.ink, pictures.ink)


def test_fewer_pictures_keep_the_test_split(pictures: Pictures) -> None:
    few = first(pictures, 7)
    assert few.formulas == pictures.formulas[:7] + pictures.formulas[-20:]
    for at in (3, 20):
        own = few.ink[few.offsets[at] :][: few.sizes[at].prod()]
        place = pictures.formulas.index(few.formulas[at]) if at > 7 else at
        other = pictures.ink[pictures.offsets[place] :][: pictures.sizes[place].prod()]
        np.testing.assert_array_equal(own, other)


def test_sizes_are_those_of_the_processor() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(8, 700, (400, 2), generator=generator)
    expected = [smart_resize(int(h), int(w), 16, MIN_PIXELS, MAX_PIXELS) for h, w in sizes]
    assert (cells(sizes.float()) * 16).tolist() == [list(pair) for pair in expected]


def test_a_picture_without_jitter_is_itself() -> None:
    """Where the stored size is already a multiple of 16 nothing is resized."""
    flat = np.arange(32 * 48, dtype=np.uint8) % 8
    one = Pictures(["a"], np.array([[32, 48]]), flat, test=1)
    shelf = Shelf(one, chat.train_tokenizer(["a"]), "cpu")
    assert shelf.cells(torch.tensor([0])).tolist() == [[2, 3]]
    batch = shelf.batch(torch.tensor([0]), (2, 3))
    expected = -2 * torch.from_numpy(flat.reshape(48, 32).T / 7.0).float()
    torch.testing.assert_close(batch.patches, patches_of(expected[None], batch.grid))


def test_a_line_shows_each_sign_where_it_says(shelf: Shelf, tokenizer: Any) -> None:
    batch = shelf.line(8, 5, torch.Generator().manual_seed(0))
    assert batch.places is not None
    assert batch.places.sum(dim=(1, 2)).tolist() == [5.0] * 8
    tokens = batch.patches.reshape(8, batch.grid.tokens, -1)[:, batch.grid.order.argsort()]
    dark = tokens.amin(dim=2) < -0.3
    assert dark[batch.places.any(dim=2)].float().mean() > 0.9
    for row in range(8):
        truth = tokenizer.decode(batch.answers[row, batch.learnt[row]].tolist()).split()
        middles = (batch.places[row].nonzero() % batch.grid.wide).tolist()
        assert len(truth) == 5
        assert {SIGNS[sign] for _, sign in batch.places[row].nonzero().tolist()} == set(truth)
        assert len(middles) == 5


def test_patches_are_cut_as_the_processor_cuts_them() -> None:
    images = torch.randn(1, 32, 48)
    # rows of image tokens, then the four patches of each: the family's order
    cut = images.reshape(2, 2, 8, 3, 2, 8).permute(0, 3, 1, 4, 2, 5).reshape(24, 64)
    torch.testing.assert_close(patches_of(images, grid_of(2, 3))[0], cut)


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_the_batched_forward_is_that_of_transformers(
    model: Any, tokenizer: Any, shelf: Shelf, pictures: Pictures, place: float
) -> None:
    """Also where a picture has several windows."""
    by_width = pictures.sizes[:, 1].argsort()
    numbers = torch.from_numpy(by_width[int(place * (len(by_width) - 2)) :][:2].copy())
    batch = shelf.batch(numbers, (3, 4 + int(12 * place)))
    assert len(batch.grid.windows) == 1 + (place > 0) + (place == 1)
    prompt = prompts(tokenizer, "cpu")[3]
    with torch.no_grad():
        seen = tower(model, batch.patches, batch.grid)
        logits = model.lm_head(hidden_states_of(model, seen, batch.grid, prompt, batch.answers))
        for row in range(2):
            length = int(batch.learnt[row].sum())
            expected = _plain(model, tokenizer, batch, prompt, row)[-length - 1 :]
            torch.testing.assert_close(logits[row, : length + 1], expected, atol=1e-4, rtol=1e-4)


def _plain(model: Any, tokenizer: Any, batch: Any, prompt: Any, row: int) -> torch.Tensor:
    """Logits of one row by transformers' own forward, [length, vocabulary]."""
    tokens, image = batch.grid.tokens, tokenizer.token_to_id(chat.IMAGE)
    answer = batch.answers[row, batch.learnt[row]]
    ids = torch.cat([prompt.before, torch.full((tokens,), image), prompt.behind, answer])[None]
    cut = batch.patches[row].reshape(tokens, 4, 64)[batch.grid.order.argsort()].reshape(-1, 64)
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == image).long(),
        pixel_values=cut[:, None, None].expand(-1, 3, 2, -1).flatten(1),
        image_grid_thw=torch.tensor([[1, 2 * batch.grid.high, 2 * batch.grid.wide]]),
    ).logits[0]


def test_reading_is_the_greedy_answer(model: Any, tokenizer: Any, shelf: Shelf) -> None:
    batch = shelf.batch(torch.tensor([100, 340]), (2, 5))
    prompt, end = prompts(tokenizer, "cpu")[0], tokenizer.token_to_id(chat.END)
    said = read(model, batch.patches, batch.grid, prompt, end, longest=5)
    seen = tower(model, batch.patches, batch.grid)
    for row in range(2):
        given = torch.tensor([said[row]], dtype=torch.int64)
        out = hidden_states_of(model, seen[row : row + 1], batch.grid, prompt, given)
        best = model.lm_head(out).argmax(-1)[0].tolist()
        assert best[: len(said[row])] == said[row]


def test_signs_and_where_they_are_can_be_learnt(model: Any, tokenizer: Any, shelf: Shelf) -> None:
    """A batch by heart: both losses reach the weights of both towers."""
    batch, prompt = (
        shelf.line(8, 2, torch.Generator().manual_seed(0)),
        prompts(tokenizer, "cpu")[-1],
    )
    bias = torch.nn.Parameter(torch.zeros(len(SIGNS)))
    optimizer = torch.optim.Adam([*model.parameters(), bias], lr=2e-3)
    told = []
    for _ in range(40):
        parts = losses(model, bias, shelf.signs, batch, prompt)
        torch.autograd.backward(torch.stack([*parts.values()]).sum())
        optimizer.step()
        optimizer.zero_grad()
        told.append({name: float(part.detach()) for name, part in parts.items()})
    assert told[-1]["signs"] < 0.3 * told[0]["signs"]
    assert told[-1]["line"] < 0.5 * told[0]["line"]


def test_training_reads_lines_then_formulas(tokenizer: Any, shelf: Shelf) -> None:
    model = new_model(tokenizer, seed=0)
    told: list[str] = []
    schedule = Schedule(1e9, steps=6, rows=4, lr=1e-3, lines=0.5, growing=0.2, warmup=2)
    took = train(model, shelf, prompts(tokenizer, "cpu"), schedule, 0, told.append)
    assert (took["steps"], took["pictures_seen"]) == (6, 24)
    assert took["final_loss"] > 0
    kernel = model.model.visual.patch_embed.proj.weight
    torch.testing.assert_close(kernel[:, 0], kernel[:, 2])


def test_lines_grow_when_they_are_read_well() -> None:
    lines, rng = Lines(), random.Random(0)
    assert lines.signs(rng) == 1
    lines.heard(1, 2.0)
    assert lines.reach == 1
    for _ in range(20):
        lines.heard(1, 0.1)
    assert lines.reach == 2
    lines.heard(1, 0.1)  # shorter ones say nothing of the longest
    assert lines.reach == 2
    while not lines.learnt:
        lines.heard(lines.reach, 0.1)
    assert max(lines.signs(rng) for _ in range(50)) == Lines.LONGEST


def test_answers_are_judged_in_the_order_of_the_pictures(
    model: Any, tokenizer: Any, shelf: Shelf, pictures: Pictures
) -> None:
    pairs = answers(model, shelf, tokenizer, prompts(tokenizer, "cpu"), count=20)
    assert sorted(truth for _, truth in pairs) == sorted(pictures.formulas[-20:])
    scores = by_length([("a", "a"), ("a + b", "a + c")], limits=(2, 10))
    assert {name: one.exact for name, one in scores.items()} == {"1-2": 1.0, "3-10": 0.0}
