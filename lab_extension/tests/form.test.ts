import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rangeText } from '../ui/form.ts';
import type { FieldInfo } from '../ui/model.ts';

function field(changes: Partial<FieldInfo>): FieldInfo {
  return {
    path: 'lora.r',
    title: 'Rank',
    description: '',
    type: 'integer',
    default: 16,
    optional: false,
    minimum: null,
    maximum: null,
    exclusive_minimum: null,
    exclusive_maximum: null,
    choices: null,
    unit: null,
    link: null,
    advanced: false,
    group: 'LoRA',
    ...changes
  };
}

test('a range is told in words, open ends too', () => {
  assert.equal(rangeText(field({ minimum: 1, maximum: 1024 })), '1 to 1,024; default 16.');
  assert.equal(rangeText(field({ exclusive_minimum: 0, default: 1 })), 'Above 0; default 1.');
  assert.equal(rangeText(field({ minimum: 0, exclusive_maximum: 1, default: 0 })), '0 to below 1; default 0.');
  assert.equal(rangeText(field({ minimum: 1, default: null })), 'From 1.');
  assert.equal(rangeText(field({ type: 'string', default: 'auto' })), '');
});
