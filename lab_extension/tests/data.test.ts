import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Axis, keyedStop, share } from '../ui/data/axis.ts';
import { consequences } from '../ui/data/lengths.ts';
import { matching, meaning } from '../ui/data/options.ts';
import type { Stop } from '../ui/data/state.ts';
import { cut, escaped, visible } from '../ui/visible.ts';

test('characters that steer are written out, and text of any script stays', () => {
  assert.equal(visible('a\u0000b\u001b[31m\u202ec\rd\ue000'), 'a\\x00b\\x1b[31m\\u202ec\\x0dd\ue000');
  const plain = 'line\n\ttab é 中文 هي \u{1f469}\u200d\u{1f4bb} می\u200cخواهم';
  assert.equal(visible(plain), plain);
  assert.equal(visible('x\ud800y\u{e0041}'), 'x\\ud800y\\u{e0041}');
  assert.equal(escaped('\ufeff'), '\\ufeff');
  assert.deepEqual(cut('a\u202eb'), [
    { text: 'a', steers: false },
    { text: '\u202e', steers: true },
    { text: 'b', steers: false }
  ]);
});

const stops: Stop[] = [8, 64, 512, 2048].map(limit => [limit, 10, 1, 0, 5, 5]);

test('an axis places lengths in order and finds the stop under a pointer', () => {
  for (const logarithmic of [true, false]) {
    const axis = new Axis({ bins: [[10, 20, 3], [20, 40, 1]], stops, logarithmic });
    assert.ok(axis.place(10) < axis.place(20));
    assert.equal(axis.place(2048), 1);
    assert.equal(axis.nearest(axis.place(512) + 0.01), 2);
    assert.equal(axis.stop(600), 2);
    assert.equal(axis.stop(4), 0);
    assert.ok(axis.ticks().every(tick => tick >= axis.low && tick <= axis.high));
  }
});

test('keys move the line within its stops', () => {
  assert.equal(keyedStop('ArrowRight', 3, 3), 3);
  assert.equal(keyedStop('PageDown', 3, 30), 0);
  assert.equal(keyedStop('End', 3, 30), 30);
  assert.equal(keyedStop('a', 3, 30), undefined);
});

test('consequences are said in shares', () => {
  assert.equal(consequences([64, 10, 0, 0, 0, 0], { rows: 10 }), 'No row is cut.');
  const words = consequences([64, 9, 2, 1, 50, 10], { rows: 10, tokens: 1000, trained: 100 });
  assert.equal(words, '2 of 10 rows (20 %) are cut: 5.0 % of all tokens are lost, 10 % of those that are learned. 1 row has nothing left to learn.');
  assert.equal(share(1, 5000), 'under 0.1 %');
});

test('what was typed filters the sources and can be taken as it stands', () => {
  const groups = [{ title: 'Files', options: [{ kind: 'file', value: 'a.csv', title: 'a.csv' }] }];
  assert.deepEqual(matching(groups, ''), groups);
  assert.deepEqual(matching(groups, 'A.C').map(group => group.title), ['Files', 'As it is written']);
  assert.deepEqual(matching(groups, 'org/name').map(group => group.options[0]?.kind), ['typed']);
  assert.equal(meaning('data.jsonl.gz'), 'a file');
  assert.equal(meaning('org/name'), 'a dataset of the Hugging Face hub');
});
