import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inOrder } from '../ui/takeaway/state.ts';

test('what was ticked first stays first: Ollama gets that file', () => {
  assert.deepEqual(inOrder(['q4_k_m'], ['q8_0', 'q4_k_m']), ['q4_k_m', 'q8_0']);
  assert.deepEqual(inOrder(['q4_k_m', 'q8_0'], ['q8_0']), ['q8_0']);
  assert.deepEqual(inOrder([], ['bf16']), ['bf16']);
});
