import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Token } from '../ui/data/state.ts';
import { blocks, heat, HEATS } from '../ui/data/turns.ts';

/** `<x>` is a special token; the number is the turn, -1 the template. */
function row(...items: [text: string, turn: number][]): Token[] {
  return items.map(([text, turn], at) => [text, at, /^<.*>$/.test(text) ? 'masked special' : 'masked', turn, null]);
}

function drawn(tokens: Token[]): [number, string][] {
  const found = blocks(tokens);
  assert.equal(found.flatMap(block => block.tokens).length, tokens.length);
  found.forEach(block => assert.equal(block.tokens[0], tokens[block.start]));
  return found.map(block => [block.turn, block.tokens.map(token => token[0]).join('')]);
}

test('the template opens and ends turns as ChatML does', () => {
  const tokens = row(['<s>', -1], ['user', -1], ['\n', -1], ['Hi', 0], ['<e>', -1], ['\n', -1], ['<s>', -1], ['assistant', -1], ['\n', -1], ['Yes', 1], ['<e>', 1], ['\n', -1], ['<s>', -1], ['user', -1], ['\n', -1], ['So', 2], ['<e>', -1], ['\n', -1]);
  assert.deepEqual(drawn(tokens), [
    [0, '<s>user\nHi<e>\n'],
    [1, '<s>assistant\nYes<e>\n'],
    [2, '<s>user\nSo<e>\n']
  ]);
});

test('the template opens and ends turns as Llama 3 does', () => {
  const tokens = row(['<b>', -1], ['<h>', -1], ['user', -1], ['</h>', -1], ['\n\n', -1], ['Hi', 0], ['<eot>', -1], ['<h>', -1], ['assistant', -1], ['</h>', -1], ['\n\n', -1], ['Yes', 1], ['<eot>', 1]);
  assert.deepEqual(drawn(tokens), [
    [0, '<b><h>user</h>\n\nHi<eot>'],
    [1, '<h>assistant</h>\n\nYes<eot>']
  ]);
});

test('a marker that only opens stays with the turn that it opens', () => {
  const tokens = row(['<user>', -1], ['Hi', 0], ['<end>', -1], ['<bot>', -1], ['Yes', 1], ['<end>', 1], ['<user>', -1], ['So', 2], ['<end>', -1]);
  assert.deepEqual(drawn(tokens), [
    [0, '<user>Hi<end>'],
    [1, '<bot>Yes<end>'],
    [2, '<user>So<end>']
  ]);
});

test('markers that are ordinary text are told apart by their lines', () => {
  const tokens = row(['Q:', -1], ['Hi', 0], ['[end]', -1], ['\n', -1], ['A:', -1], ['Yes', 1], ['\n\n', -1], ['Q:', -1], ['So', 2]);
  assert.deepEqual(drawn(tokens), [
    [0, 'Q:Hi[end]\n'],
    [1, 'A:Yes\n\n'],
    [2, 'Q:So']
  ]);
});

test('plain text, a row of template alone and no row', () => {
  assert.deepEqual(drawn(row(['<s>', 0], ['Text', 0])), [[0, '<s>Text']]);
  assert.deepEqual(drawn(row(['<s>', -1], ['Text', -1])), [[-1, '<s>Text']]);
  assert.deepEqual(drawn([]), []);
});

test('values are spread over the colours from the lowest to the highest', () => {
  assert.deepEqual([0, 0.49, 4].map(value => heat(value, 0, 4)), [0, 0, HEATS - 1]);
  assert.equal(heat(2, 0, 4), HEATS / 2);
  assert.equal(heat(3, 3, 3), 0);
  assert.equal(heat(9, 0, 4), HEATS - 1);
});
