import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accepts, agoWords, endedSince, factWords, gpuMemory, matches, newestLive, progressWords, sparkline, WISHES, type RunRow, type Translator } from '../ui/run/rows.ts';

const fill = (text: string, ...values: unknown[]): string => text.replace(/%(\d)/g, (_, at: string) => String(values[Number(at) - 1]));
const trans: Translator = { __: fill, _n: (one, many, number, ...values) => fill(number === 1 ? one : many, ...values) };

function row(values: Partial<RunRow> = {}): RunRow {
  return {
    path: 'runs/pirate', name: 'pirate', state: 'running', requests: [], reading: false, step: 12, total: 400, loss: 1.2345, first_loss: 3,
    eta: 720, seconds: 10, peak: 3 * 2 ** 30, began: 100, updated: 1000, device: 'cpu', host: 'h', failure: {}, curve: [], ...values
  };
}

test('a run is told in two lines', () => {
  assert.equal(progressWords(row(), trans), 'Running · step 12 of 400');
  assert.equal(factWords(row(), 1000, trans), '12 min left · loss 1.234 · 3.0 GiB');
  const done = row({ state: 'completed', eta: null });
  assert.equal(progressWords(done, trans), 'Completed · step 12 of 400');
  assert.equal(factWords(done, 1000 + 7300, trans), 'loss 1.234 · 3.0 GiB · 2 h ago');
  assert.equal(progressWords(row({ reading: true, eta: null }), trans), 'Running · reading its log …');
});

test('what a run can be asked for now', () => {
  const now = (values: Partial<RunRow>): string => WISHES.filter(wish => accepts(row(values), wish)).join(' ');
  assert.equal(now({}), 'pause save sample stop');
  assert.equal(now({ requests: ['pause', 'save'] }), 'continue sample stop');
  assert.equal(now({ state: 'paused', requests: ['pause'] }), 'continue save sample stop');
  assert.equal(now({ state: 'paused' }), 'save sample stop'); // it goes on in a moment
  assert.equal(now({ state: 'stopping' }) + now({ state: 'completed' }), '');
  assert.ok(!accepts(undefined, 'stop'));
  assert.equal(progressWords(row({ requests: ['pause'] }), trans), 'Pausing · step 12 of 400');
});

test('time that has passed', () => {
  const told = [5, 61, 3599, 3600, 90_000, 172_800].map(seconds => agoWords(seconds, trans));
  assert.deepEqual(told, ['just now', '1 min ago', '59 min ago', '1 h ago', '25 h ago', '2 days ago']);
});

test('the filter takes words of name, folder and state in any order', () => {
  assert.ok(matches(row(), '', trans));
  assert.ok(matches(row(), 'RUNNING pir', trans));
  assert.ok(matches(row(), 'runs/', trans));
  assert.ok(!matches(row(), 'pirate failed', trans));
});

test('an end is told once, and only of a run that was seen live', () => {
  const first = endedSince([], [row({ path: 'a' }), row({ path: 'b', state: 'completed' })]);
  assert.deepEqual(first, { ended: [], live: ['a'] });
  const second = endedSince(first.live, [row({ path: 'a', state: 'failed' }), row({ path: 'b', state: 'completed' })]);
  assert.deepEqual(second.ended.map(run => run.path), ['a']);
  assert.deepEqual(endedSince(second.live, [row({ path: 'a', state: 'failed' })]).ended, []);
});

test('a run whose log is still being read has not ended yet', () => {
  const seen = endedSince(['a'], [row({ path: 'a', state: 'interrupted', reading: true })]);
  assert.deepEqual(seen, { ended: [], live: ['a'] });
});

test('a run that went away is forgotten', () => {
  assert.deepEqual(endedSince(['a'], []), { ended: [], live: [] });
});

test('the newest live run', () => {
  const rows = [row({ path: 'a', began: 1 }), row({ path: 'b', began: 3 }), row({ path: 'c', began: 9, state: 'completed' })];
  assert.equal(newestLive(rows)?.path, 'b');
  assert.equal(newestLive([]), undefined);
});

test('a sparkline spans its box and is empty for less than two points', () => {
  assert.equal(sparkline([3, 1, 2], 100, 20), 'M0.0 0.0L50.0 20.0L100.0 10.0');
  assert.equal(sparkline([5, 5], 10, 20), 'M0.0 10.0L10.0 10.0');
  assert.equal(sparkline([1], 10, 10), '');
});

test('memory of several GPUs is added, and nothing is shown where nothing is told', () => {
  const gpu = { index: 0, name: 'x', used: 2, total: 10, busy: null };
  assert.deepEqual(gpuMemory([gpu, gpu]), { used: 4, total: 20 });
  assert.equal(gpuMemory([{ ...gpu, used: null }]), null);
  assert.equal(gpuMemory(null), null);
});
