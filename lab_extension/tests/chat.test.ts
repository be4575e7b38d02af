import assert from 'node:assert/strict';
import { test } from 'node:test';
import { percent, surprise, visible } from '../ui/chat/state.ts';

test('the less likely a token, the stronger its colour', () => {
  assert.deepEqual([1, 0.9, 0.89, 0.5, 0.2, 0.01, 0].map(surprise), [0, 0, 1, 2, 3, 4, 4]);
});

test('probabilities are read without needless digits', () => {
  assert.deepEqual([1, 0.9996, 0.923, 0.034, 0.0021, 0.00001].map(percent), ['100 %', '100 %', '92 %', '3.4 %', '0.21 %', '< 0.01 %']);
});

test('blanks of a token are made visible, and an empty one too', () => {
  assert.deepEqual([' a b ', '\n', '\t', ''].map(visible), ['␣a b␣', '↵', '⇥', '∅']);
});
