import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MOST_HEIGHT, Scale } from '../ui/virtual.ts';

for (const total of [0, 1, 9, 11, 300, 1_000_000]) {
  test(`the first and the last of ${total} rows can be scrolled to`, () => {
    const scale = new Scale(total, 30, 315);
    assert.ok(scale.height <= MOST_HEIGHT);
    assert.equal(scale.first(0), 0);
    const end = scale.first(scale.height - 315);
    assert.ok(Math.abs(end - Math.max(0, total - 10.5)) < 1e-6);
    assert.equal(scale.first(1e12), end);
    assert.ok(scale.seen <= 12);
  });
}

test('a row that is not seen is revealed, one that is seen moves nothing', () => {
  for (const total of [500, 1_000_000]) {
    const scale = new Scale(total, 30, 300);
    const middle = Math.floor(total / 2);
    const top = scale.reveal(middle, 0);
    assert.ok(Math.abs(scale.first(top) - (middle - 9)) < 1e-3);
    assert.ok(Math.abs(scale.reveal(middle - 3, top) - top) < 1e-6);
    assert.ok(Math.abs(scale.first(scale.reveal(middle - 20, top)) - (middle - 20)) < 1e-3);
    assert.ok(Math.abs(scale.first(scale.reveal(total - 1, 0)) - (total - 10)) < 1e-3);
  }
});

test('a list that fits is not scrolled', () => {
  const scale = new Scale(4, 30, 300);
  assert.equal(scale.reveal(3, 0), 0);
  assert.equal(scale.first(50), 0);
});
