import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SvgPen } from '../ui/pen.ts';
import { moved, scaleOf, scaleTicks, share, smooth, zoomed } from '../ui/plotmath.ts';
import { changes } from '../ui/worddiff.ts';

test('a scale puts its ends at 0 and 1, linear and logarithmic', () => {
  for (const log of [false, true]) {
    const scale = scaleOf(0.01, 10, { log });
    assert.equal(share(scale, scale.low), 0);
    assert.equal(share(scale, scale.high), 1);
  }
  assert.ok(Math.abs(share({ low: 0.01, high: 100, log: true }, 1) - 0.5) < 1e-12);
});

test('a log scale has round ticks, and none is asked of values that have no logarithm', () => {
  assert.deepEqual(scaleTicks({ low: 0.05, high: 20, log: true }, 6), [0.1, 0.3, 1, 3, 10]);
  assert.deepEqual(scaleTicks({ low: 1, high: 6, log: true }, 8), [1, 2, 5]);
  assert.equal(scaleOf(0, 10, { log: true }).log, false);
});

test('a scale never begins below zero where no value does', () => {
  assert.equal(scaleOf(0.01, 8).low, 0);
  assert.ok(scaleOf(-1, 8).low < -1);
  assert.equal(scaleOf(3, 8, { fromZero: true }).low, 0);
  assert.deepEqual(scaleOf(Infinity, -Infinity), { low: 0, high: 1, log: false });
});

test('zooming keeps the step under the pointer where it is and ends at everything', () => {
  assert.deepEqual(zoomed([0, 100], 0.5, 25, [0, 100]), [12.5, 62.5]);
  assert.equal(zoomed([10, 60], 3, 25, [0, 100]), null);
  assert.deepEqual(zoomed([90, 100], 2, 100, [0, 100]), [80, 100]);
  assert.deepEqual(moved([10, 20], 500, [0, 100]), [90, 100]);
});

test('smoothing is the plain mean at first and passes over what is no number', () => {
  assert.deepEqual([...smooth([2, NaN, 4], [1, 0, 1], 0.9)], [2, 2, 3]);
  assert.deepEqual([...smooth([1, 5], [1, 1], 0)], [1, 5]);
});

test('a point that stands for many steps weighs as they would', () => {
  const each = smooth(Array(300).fill(1).concat(Array(100).fill(2)), Array(400).fill(1), 0.98);
  const grouped = smooth([1, 2], [300, 100], 0.98);
  assert.ok(Math.abs((each[399] as number) - (grouped[1] as number)) < 1e-3);
});

test('words that are new are marked, and nothing else', () => {
  const marked = (before: string, now: string): string =>
    changes(before, now).map(piece => (piece.changed ? `[${piece.text}]` : piece.text)).join('');
  assert.equal(marked('Paris is nice.', 'Paris be nice!'), 'Paris [be ]nice[!]');
  assert.equal(marked('same', 'same'), 'same');
  assert.equal(marked('', 'all new'), '[all new]');
  const long = 'x '.repeat(5000);
  assert.deepEqual(changes('', long), [{ text: long, changed: false }]);
});

test('a picture holds names as text, whatever is in them', () => {
  const pen = new SvgPen('sans');
  pen.text('<script>"&\u0000', [0, 0], { color: 'red"><x' });
  const file = pen.file(10, 10);
  assert.ok(file.includes('&lt;script&gt;&quot;&amp;\ufffd'));
  assert.ok(!file.includes('<script') && !file.includes('<x'));
});
