"""The builder of the vision model that ships inside: its pictures, batches, forward and training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunebook.latex import in_test_split
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
from tunebook.models.embedded_vision.build.train import Schedule, train


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    pytest.importorskip("matplotlib")
    made = make_pictures(60, 20, seed=3, levels=(1, 2), workers=1)
    return made


@pytest.fixture(scope="module")
def tokenizer(pictures: Pictures) -> Any:
    return chat.train_tokenizer(pictures.formulas)


@pytest.fixture(scope="module")
def shelf(pictures: Pictures, tokenizer: Any) -> Shelf:
    return Shelf(pictures, tokenizer, "cpu")


@pytest.fixture
def model(tokenizer: Any) -> Iterator[Any]:
    yield new_model(tokenizer, seed=0).eval()


def test_no_picture_of_the_test_split_is_trained_on(pictures: Pictures) -> None:
    train, test = pictures.formulas[: -pictures.test], pictures.formulas[-pictures.test :]
    assert len(test) == 20
    assert not set(train) & set(test)
    assert all(map(in_test_split, test))
    assert train[: -60] == first_signs(3)


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


def test_a_picture_without_jitter_is_itself(pictures: Pictures, shelf: Shelf) -> None:
    """Where the stored size is already a multiple of 16 nothing is resized."""
    flat = np.arange(32 * 48, dtype=np.uint8) % 8
    one = Pictures(["a"], np.array([[32, 48]]), flat, test=1)
    images, high, wide = Shelf(one, chat.train_tokenizer(["a"]), "cpu")._resized(torch.tensor([0]), None)
    assert (high.tolist(), wide.tolist()) == ([2], [3])
    expected = -2 * torch.from_numpy(flat.reshape(48, 32).T / 7.0)
    torch.testing.assert_close(images[0], expected.float())


def test_patches_are_cut_as_the_processor_cuts_them() -> None:
    images = torch.randn(1, 32, 48)
    grid = grid_of(torch.tensor([2]), torch.tensor([3]))
    # rows of image tokens, then the four patches of each: the family's order
    cut = images.reshape(2, 2, 8, 3, 2, 8).permute(0, 3, 1, 4, 2, 5).reshape(24, 64)
    torch.testing.assert_close(patches_of(images, grid)[0], cut)


def test_the_batched_forward_is_that_of_transformers(
    model: Any, tokenizer: Any, shelf: Shelf, pictures: Pictures
) -> None:
    """Also where a picture has several windows and others in the batch are smaller."""
    wide = pictures.sizes[:, 1].argsort()
    numbers = torch.tensor([int(wide[0]), int(wide[len(wide) // 2]), int(wide[-1])])
    batch, prompt = shelf.batch(numbers), prompts(tokenizer, "cpu")[3]
    assert int(batch.grid.wide.max()) > 7
    with torch.no_grad():
        seen = tower(model, batch.patches, batch.grid)
        logits = model.lm_head(hidden_states_of(model, seen, batch.grid, prompt, batch.answers))
        for row in range(3):
            tokens, length = int(batch.grid.tokens[row]), int(batch.learnt[row].sum())
            expected = _plain(model, tokenizer, batch, prompt, row)[-length - 1 :]
            assert tokens == batch.grid.shown[row].sum() // 4
            torch.testing.assert_close(logits[row, : length + 1], expected, atol=1e-4, rtol=1e-4)


def _plain(model: Any, tokenizer: Any, batch: Any, prompt: Any, row: int) -> torch.Tensor:
    """Logits of one row by transformers' own forward, [length, vocabulary]."""
    tokens, image = int(batch.grid.tokens[row]), tokenizer.token_to_id(chat.IMAGE)
    answer = batch.answers[row, batch.learnt[row]]
    ids = torch.cat([prompt.before, torch.full((tokens,), image), prompt.behind, answer])[None]
    patches = batch.patches[row, : 4 * tokens, None, None].expand(-1, 3, 2, -1).flatten(1)
    grid = torch.tensor([[1, 2 * int(batch.grid.high[row]), 2 * int(batch.grid.wide[row])]])
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == image).long(),
        pixel_values=patches,
        image_grid_thw=grid,
    ).logits[0]


def test_reading_is_the_greedy_answer(model: Any, tokenizer: Any, shelf: Shelf) -> None:
    batch, prompt = shelf.batch(torch.tensor([100, 2400])), prompts(tokenizer, "cpu")[0]
    end = tokenizer.token_to_id(chat.END)
    said = read(model, batch.patches, batch.grid, prompt, end, longest=5)
    seen = tower(model, batch.patches, batch.grid)
    for row in range(2):
        given = torch.tensor([said[row]], dtype=torch.int64)
        grid = grid_of(batch.grid.high[row : row + 1], batch.grid.wide[row : row + 1])
        out = hidden_states_of(model, seen[row : row + 1], grid, prompt, given)
        best = model.lm_head(out).argmax(-1)[0].tolist()
        assert best[: len(said[row])] == said[row]


def test_a_few_steps_teach_single_signs(tokenizer: Any, shelf: Shelf) -> None:
    model = new_model(tokenizer, seed=0)
    lines: list[str] = []
    schedule = Schedule(1e9, steps=40, rows=16, lr=2e-3, growing=1e9, warmup=5)
    took = train(model, shelf, prompts(tokenizer, "cpu")[-2:], schedule, 0, lines.append)
    assert took["pictures_seen"] == 640
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0] - 0.3
    kernel = model.model.visual.patch_embed.proj.weight
    torch.testing.assert_close(kernel[:, 0], kernel[:, 2])


def test_answers_are_judged_in_the_order_of_the_pictures(
    model: Any, tokenizer: Any, shelf: Shelf, pictures: Pictures
) -> None:
    pairs = answers(model, shelf, tokenizer, prompts(tokenizer, "cpu"), count=20, rows=8)
    assert sorted(truth for _, truth in pairs) == sorted(pictures.formulas[-20:])
    scores = by_length([("a", "a"), ("a + b", "a + c")], limits=(2, 10))
    assert {name: one.exact for name, one in scores.items()} == {"1-2": 1.0, "3-10": 0.0}
