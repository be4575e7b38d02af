import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, columns, duration, figure, nearest, tickLabel, ticks } from '../ui/format.ts';

test('bytes are told in binary units', () => {
  assert.equal(bytes(0), '0 B');
  assert.equal(bytes(1536), '1.5 KiB');
  assert.equal(bytes(6.5 * 2 ** 30), '6.5 GiB');
  assert.equal(bytes(512 * 2 ** 20), '512 MiB');
});

test('durations are told in the two largest units', () => {
  assert.equal(duration(0.2), 'under a second');
  assert.equal(duration(59.6), '1 min');
  assert.equal(duration(200), '3 min 20 s');
  assert.equal(duration(2 * 3600 + 300), '2 h 5 min');
});

test('figures keep four digits', () => {
  assert.equal(figure(2.34567), '2.346');
  assert.equal(figure(5.71e-6), '5.71e-6');
  assert.equal(figure(12400), '12,400');
  assert.equal(figure(Number.NaN), 'NaN');
});

test('ticks are round, inside the range and no more than asked for', () => {
  for (const [low, high, most] of [[0, 10, 5], [0.13, 0.87, 4], [-3, 7, 6], [1, 40, 5], [0, 1e-5, 4]] as const) {
    const found = ticks(low, high, most);
    assert.ok(found.length >= 1 && found.length <= most + 1, `${found}`);
    assert.ok(found.every(value => value >= low - 1e-9 && value <= high + 1e-9), `${found}`);
  }
  assert.deepEqual(ticks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
});

test('ticks of bytes fall on powers of two', () => {
  const found = ticks(0, 60 * 2 ** 20, 4, 1024);
  assert.deepEqual(found.map(value => value / 2 ** 20), [0, 16, 32, 48]);
});

test('a range without width has one tick', () => {
  assert.deepEqual(ticks(3, 3, 5), [3]);
});

test('labels have the decimals of their step', () => {
  assert.equal(tickLabel(2, 0.5), '2.0');
  assert.equal(tickLabel(2, 1), '2');
  assert.equal(tickLabel(0.25, 0.05), '0.25');
});

test('columns come out of a byte trait that does not begin at its buffer', () => {
  const buffer = new ArrayBuffer(4 + 24);
  new Float32Array(buffer, 4).set([1, 2, 10, 20, 100, 200]);
  const [x, first, second] = columns(new DataView(buffer, 4), 3);
  assert.deepEqual([...(x ?? [])], [1, 2]);
  assert.deepEqual([...(first ?? [])], [10, 20]);
  assert.deepEqual([...(second ?? [])], [100, 200]);
});

test('an empty trait gives empty columns', () => {
  assert.equal(columns(null, 3).length, 3);
  assert.equal(columns(new DataView(new ArrayBuffer(0)), 2)[0]?.length, 0);
});

test('the nearest point is found', () => {
  const column = [1, 2, 4, 8];
  assert.equal(nearest(column, -5), 0);
  assert.equal(nearest(column, 3.5), 2);
  assert.equal(nearest(column, 99), 3);
  assert.equal(nearest([], 1), -1);
});
