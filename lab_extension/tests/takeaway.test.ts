import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gainWords, mixMap, moved, step, typeWords } from '../ui/takeaway/mix.ts';
import { inOrder, type Mix, type MixTensor } from '../ui/takeaway/state.ts';

test('what was ticked first stays first: Ollama gets that file', () => {
  assert.deepEqual(inOrder(['q4_k_m'], ['q8_0', 'q4_k_m']), ['q4_k_m', 'q8_0']);
  assert.deepEqual(inOrder(['q4_k_m', 'q8_0'], ['q8_0']), ['q8_0']);
  assert.deepEqual(inOrder([], ['bf16']), ['bf16']);
});

function tensor(layer: number, role: string, type = 'Q4_K', stock = 'Q4_K'): MixTensor {
  return { name: `blk.${layer}.${role}.weight`, layer, role, type, bits: 4.5, size: '1 MiB', error: 0.00123, stock, why: 'Why.' };
}

const map = mixMap([tensor(-1, 'token_embd'), tensor(0, 'attn_q'), tensor(0, 'ffn_up'), tensor(1, 'attn_q'), tensor(1, 'ffn_up'), tensor(-1, 'output')]);

test('a map has a row for each layer, and one before them for what belongs to none', () => {
  assert.deepEqual(map.rows, [-1, 0, 1]);
  assert.deepEqual(map.roles, ['attn_q', 'ffn_up']);
  assert.equal(map.at(0, 0)?.role, 'token_embd');
  assert.equal(map.at(0, 1)?.role, 'output');
  assert.equal(map.at(2, 1)?.name, 'blk.1.ffn_up.weight');
  assert.equal(map.at(3, 0), undefined);
});

test('the arrow keys go to the next tensor, over gaps, and stay at the edge', () => {
  assert.deepEqual(moved(map, [0, 0], 'ArrowRight'), [0, 1]);
  assert.deepEqual(moved(map, [2, 1], 'ArrowDown'), [2, 1]);
  assert.deepEqual(moved(map, [1, 0], 'End'), [1, 1]);
  assert.equal(moved(map, [1, 0], 'a'), null);
  const gap = mixMap([tensor(-1, 'token_embd'), tensor(0, 'attn_q'), tensor(0, 'ffn_up'), tensor(1, 'ffn_up')]);
  assert.deepEqual(moved(gap, [1, 1], 'ArrowUp'), [0, 0]);
  assert.deepEqual(moved(gap, [1, 0], 'ArrowDown'), [1, 0]);
});

test('more bits are another colour, and the types of one size share theirs', () => {
  assert.deepEqual([2.63, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5, 16].map(step), [0, 1, 2, 2, 3, 4, 5, 6]);
});

test('a tensor is told with its error, and with what llama.cpp has there if that is another type', () => {
  assert.equal(typeWords(tensor(0, 'attn_q')), 'Q4_K: 4.5 bits a weight, 1 MiB, costs about 1.2e-3 nats a token.');
  assert.match(typeWords(tensor(0, 'attn_q', 'Q4_K', 'Q6_K')), /llama\.cpp's mix has Q6_K here\.$/);
});

test('what is said of the gain is what was written', () => {
  const measured = ['dynamic-Q4_K_M', 'Q4_K_M'].map(name => ({ name, size: '3 MiB', mean: 0.01, percentile_99: 0.1, percentile_99_9: 0.2, same_top: 0.97 }));
  const mix: Mix = { name: 'dynamic-Q4_K_M', bits: 4.9, used: true, gain: 0.304, about: '', measured, tensors: [] };
  assert.match(gainWords(mix), /^30 % less divergence than Q4_K_M/);
  assert.match(gainWords({ ...mix, used: false }), /that is what was written/);
  assert.match(gainWords({ ...mix, gain: null, measured: measured.slice(0, 1) }), /that small/);
});
