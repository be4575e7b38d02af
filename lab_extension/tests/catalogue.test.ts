import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contextText, shownRows, type Row } from '../ui/catalogue.ts';

function row(name: string, changes: Partial<Row> = {}): Row {
  return {
    name, title: name, source: 'catalogue', family: 'llama', parameters: 1e9, context: 8192, licence: 'mit', languages: ['en'],
    modality: ['text'], template: '', hub_id: `org/${name}`, verdict: 'fits', memory: 10, seconds: 1, cure: '', change: {}, why: '', ...changes
  };
}

const ROWS = [
  row('big', { parameters: 70e9, verdict: 'no', memory: 90 }),
  row('small', { parameters: 5e8, family: 'qwen3', licence: 'apache-2.0' }),
  row('eyes', { parameters: 4e9, modality: ['text', 'image'], verdict: 'tight', memory: 40, context: 131072 }),
  row('here', { source: 'folder', parameters: 0, verdict: '', memory: 0, family: 'mamba' })
];
const names = (view: Parameters<typeof shownRows>[1]): string[] => shownRows(ROWS, view).map(item => item.name);

test('all words of a search must be found somewhere', () => {
  assert.deepEqual(names({ query: 'ORG apache' }), ['small']);
  assert.deepEqual(names({ query: 'image' }), ['eyes']);
  assert.deepEqual(names({ query: 'nothing like it' }), []);
});

test('filters work together', () => {
  assert.deepEqual(names({ family: 'llama', fits: true }), ['eyes']);
  assert.deepEqual(names({ size: 'huge' }), ['big']);
  assert.deepEqual(names({ modality: 'image' }), ['eyes']);
  assert.deepEqual(names({ fits: true }), ['small', 'eyes']);
});

test('sorting keeps equals in order, and puts the unknown memory last', () => {
  assert.deepEqual(names({}), ['big', 'small', 'eyes', 'here']);
  assert.deepEqual(names({ sort: 'memory' }), ['small', 'eyes', 'big', 'here']);
  assert.deepEqual(names({ sort: 'context' }), ['eyes', 'big', 'small', 'here']);
  assert.deepEqual(names({ sort: 'largest' }), ['big', 'eyes', 'small', 'here']);
});

test('a context in thousands of 1024', () => {
  assert.deepEqual([131072, 40960, 512].map(contextText), ['128 k', '40 k', '512']);
});
