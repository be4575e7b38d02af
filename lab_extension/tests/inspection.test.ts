import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freeName, guideCode, previewCode, pythonText, watchCode } from '../plugin/code.ts';
import { matching, seen, shares } from '../ui/inspection.ts';

test('a path with quotes, backslashes and line ends is one Python string', () => {
  assert.equal(pythonText(`it's "odd" \\ é 数据\n.jsonl`), `"it's \\"odd\\" \\\\ é 数据\\n.jsonl"`);
});

test('characters that turn a line around are escaped in code', () => {
  assert.equal(pythonText('a\u202eb\u2066c\u2028d'), '"a\\u202eb\\u2066c\\u2028d"');
});

test('code names only what the user set', () => {
  const none = { model: '', runs: '' };
  assert.equal(guideCode(none), 'import tunebook\n\nguide = tunebook.Guide()\nguide');
  assert.match(guideCode({ model: 'a/b', runs: 'x y' }), /Guide\(tunebook\.Recipe\.of\("a\/b"\), root="x y"\)/);
  assert.match(guideCode({ model: '', runs: 'x' }), /Guide\(root="x"\)/);
  assert.match(previewCode('r.jsonl', none), /DataPanel\(tunebook\.Recipe\.of\(data="r\.jsonl"\)\)/);
  assert.match(previewCode('r.jsonl', { model: 'm', runs: '' }), /Recipe\.of\(model="m", data="r\.jsonl"\)/);
  assert.match(watchCode('runs/a'), /open_run\("runs\/a"\)/);
});

test('a name that is taken gets the first free number before its ending', () => {
  assert.equal(freeName('a.ipynb', new Set()), 'a.ipynb');
  assert.equal(freeName('a b.ipynb', new Set(['a b.ipynb', 'a b 2.ipynb'])), 'a b 3.ipynb');
  assert.equal(freeName('rows.jsonl preview.ipynb', new Set(['rows.jsonl preview.ipynb'])), 'rows.jsonl preview 2.ipynb');
  assert.equal(freeName('none', new Set(['none'])), 'none 2');
});

test('every type of tensor is seen in the bar, and all of them fill it', () => {
  const type = { type: 'x', tensors: 1, parameters: 1, bits: 1 };
  const widths = shares([{ ...type, bytes: 1e9 }, { ...type, bytes: 1 }]);
  assert.ok((widths[1] ?? 0) > 0.3);
  assert.equal(Math.round(widths.reduce((sum, each) => sum + each, 0)), 100);
  assert.deepEqual(shares([]), []);
  assert.deepEqual(shares([{ ...type, bytes: 0 }]), [100]);
});

test('a filter finds rows that hold all words, in any order and case', () => {
  const rows = ['blk.0.attn_q.weight Q4_K', 'blk.1.attn_q.weight Q6_K', 'output F32'];
  assert.deepEqual(matching(rows, ' q6_k ATTN ', row => row), [rows[1]]);
  assert.equal(matching(rows, '  ', row => row).length, 3);
});

test('what cannot be seen in a name is shown by a sign', () => {
  assert.equal(seen('a\u202eb\u001b[2Jc\nd'), 'a\ufffdb\ufffd[2Jc\nd');
  assert.equal(seen('שלום é 数据'), 'שלום é 数据');
});
