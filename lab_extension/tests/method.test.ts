import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compact, percent, stepTime } from '../ui/format.ts';
import { isPlausible } from '../ui/form.ts';
import { bytesAt, nextWords, place, type Ladder, type Rung } from '../ui/method/ladder.ts';
import { isShortcut, trainableWords } from '../ui/method/layer.ts';
import { layout, type Layer, type LayerPart } from '../ui/method/layout.ts';
import { curve, rate } from '../ui/method/schedule.ts';
import type { FieldInfo } from '../ui/model.ts';

const NAMES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];

function part(name: string, adapted = true): LayerPart {
  const block = 'qkvo'.includes(name.charAt(0)) ? 'attention' : 'mlp';
  return { name, block, size_in: 8, size_out: 8, adapted, trainable: adapted ? 32 : 0, would_train: 32 };
}

function layer(names: string[] = NAMES, norms: Layer['norms'] = ['input', '', 'post', '']): Layer {
  return { norms, parts: names.map(name => part(name)) };
}

for (const width of [280, 340, 600, 1100]) {
  test(`a layer's picture ${width} px wide stays inside and nothing overlaps`, () => {
    for (const one of [layer(), layer(['qkv_proj', 'o_proj', 'gate_up_proj', 'down_proj']), layer(NAMES, ['a', 'b', 'c', 'd']), layer(NAMES, ['', 'b', '', 'd'])]) {
      const drawn = layout(one, width);
      assert.equal(drawn.boxes.filter(box => box.kind === 'part').length, one.parts?.length);
      for (const box of drawn.boxes) {
        assert.ok(box.x >= 0 && box.x + box.width <= width + 0.5, `${box.name} sticks out`);
        assert.ok(box.y >= 0 && box.y + box.height <= drawn.height);
        for (const other of drawn.boxes.filter(item => item !== box)) {
          const apart = box.x + box.width <= other.x || other.x + other.width <= box.x || box.y + box.height <= other.y || other.y + other.height <= box.y;
          assert.ok(apart, `${box.name} lies on ${other.name}`);
        }
      }
      assert.equal(drawn.sums.length, 2);
      assert.equal(drawn.wide, width > 1000);
    }
  });
}

test('shortcuts know exactly their modules', () => {
  const attention = NAMES.map((name, at) => part(name, at < 4));
  assert.ok(isShortcut('attention', attention));
  assert.ok(!isShortcut('all', attention));
  assert.ok(isShortcut('all', NAMES.map(name => part(name))));
  assert.equal(trainableWords({ trainable: 41_943_040, share: 0.0052, layers: 32, rank: 16 }), '41.9 M weights learn: 0.52 % of this model, at rank 16 in 32 layers alike.');
});

test('the slider goes by equal ratios and comes back', () => {
  assert.equal(place(100, 100, 1000), 0);
  assert.equal(place(1000, 100, 1000), 1);
  assert.equal(place(5, 100, 1000), 0);
  assert.equal(place(7, 7, 7), 0);
  assert.ok(Math.abs(bytesAt(place(320, 100, 1000), 100, 1000) - 320) < 1e-6);
});

function rung(title: string, total: number, seconds: number, taken: number, steps = 1): Rung {
  return { title, about: '', steps, taken, total, seconds, saves: 0, costs: 0 };
}

test('the next rung is told in both directions', () => {
  const MIB = 2 ** 20;
  const ladder: Ladder = {
    total: 700 * MIB,
    seconds: 1.1,
    rungs: [rung('Start', 1000 * MIB, 1, 1), rung('Unpack again', 800 * MIB, 1.05, 1), rung('Make norms again', 600 * MIB, 1.21, 2, 4)]
  };
  assert.deepEqual(nextWords(ladder), [
    'Next rung down, make norms again: 100 MiB less, 10 % slower.',
    'With 100 MiB more it need not make norms again: 5 % faster.'
  ]);
  const full: Ladder = { total: 1000 * MIB, seconds: 1, rungs: ladder.rungs?.map((one, at) => ({ ...one, taken: at ? 0 : 1 })) ?? [] };
  assert.deepEqual(nextWords(full), ['Next rung down, unpack again: 200 MiB less, 5 % slower.']);
  assert.deepEqual(nextWords({}), []);
});

test('rates are written as people write them', () => {
  assert.deepEqual([2e-4, 1e-3, 1.5e-5, 0.05, 0, 1].map(rate), ['2e-4', '1e-3', '1.5e-5', '0.05', '0', '1']);
});

test('the curve of the schedule fills its picture', () => {
  const points = curve({ points: [[0, 0], [5, 1e-3], [10, 0]], steps: 10 }, 216, 138);
  assert.deepEqual(points, [[8, 118], [108, 18], [208, 118]]);
});

test('a half-typed number is not sent, a whole one is', () => {
  const field = { type: 'number', minimum: null, maximum: 1, exclusive_minimum: 0, exclusive_maximum: null } as FieldInfo;
  assert.deepEqual(['', '2', '2e', '2e-', '2e-4', '0', '1', '.5', 'x'].map(text => isPlausible(field, text)), [false, false, false, false, true, false, true, true, false]);
  const whole = { ...field, type: 'integer', minimum: 1, maximum: 1024, exclusive_minimum: null } as FieldInfo;
  assert.deepEqual(['16', ' 8 ', '1.5', '0', '2000', '1_000'].map(text => isPlausible(whole, text)), [true, true, false, false, false, false]);
  assert.ok(!isPlausible({ ...whole, type: 'string' }, '16'));
});

test('numbers in few figures', () => {
  assert.deepEqual([1235814400, 41943040, 467_000, 3072].map(compact), ['1.24 B', '41.9 M', '467 k', '3,072']);
  assert.deepEqual([0.0834, 1.44, 200].map(stepTime), ['83 ms', '1.4 s', '3 min 20 s']);
  assert.deepEqual([0.00523, 0.12, 0.00001, 0].map(percent), ['0.52 %', '12 %', 'under 0.01 %', '0 %']);
});
