/** Where the parts of a layer stand in its picture; numbers only, so that they can be tested. */

export interface LayerPart {
  name: string;
  block: 'attention' | 'mlp';
  size_in: number;
  size_out: number;
  adapted: boolean;
  trainable: number;
  would_train: number;
}

export interface Layer {
  architecture?: string;
  layers?: number;
  heads?: number;
  key_value_heads?: number;
  norms?: [string, string, string, string];
  head_norms?: boolean;
  parts?: LayerPart[];
  bias?: number;
  trainable?: number;
  total?: number;
  share?: number;
  rank?: number;
  unknown?: string[];
}

export type Point = readonly [number, number];

export interface Box {
  kind: 'part' | 'step';
  name: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Layout {
  wide: boolean;
  width: number;
  height: number;
  boxes: Box[];
  wires: Point[][];
  sums: Point[];
  residual: [Point, Point];
}

interface Stage {
  items: { kind: 'part' | 'step'; name: string }[];
  /** Along the flow, if the picture is drawn sideways. */
  step: number;
}

const NARROWEST_PART = 88;
const WIDEST_PART = 132;
const PART_HEIGHT = 46;
const BETWEEN = 8;

/** Sideways where there is room for it, else from top to bottom. */
export function layout(layer: Layer, width: number): Layout {
  const blocks = blocksOf(layer);
  const steps = blocks.flat().reduce((sum, stage) => sum + stage.step, 0);
  const parts = blocks.flat().filter(stage => stage.items[0]?.kind === 'part').length;
  const gaps = blocks.reduce((sum, stages) => sum + stages.length + 1, 0) + 1;
  const room = width - 32 - steps;
  const part = Math.min(WIDEST_PART, (room - 18 * gaps) / Math.max(1, parts));
  if (part >= NARROWEST_PART) {
    return sideways(blocks, width, part, Math.min(44, (room - part * parts) / gaps));
  }
  return downwards(blocks, width);
}

function blocksOf(layer: Layer): Stage[][] {
  const [before, after, beforeMlp, afterMlp] = layer.norms ?? ['', '', '', ''];
  const names = (layer.parts ?? []).map(part => part.name);
  const of = (...wanted: string[]): Stage[] => {
    const items = names.filter(name => wanted.includes(name)).map(name => ({ kind: 'part' as const, name }));
    return items.length ? [{ items, step: 0 }] : [];
  };
  const step = (name: string, size: number): Stage[] => (name ? [{ items: [{ kind: 'step' as const, name }], step: size }] : []);
  return [
    [...step(before && 'norm', 44), ...of('q_proj', 'k_proj', 'v_proj', 'qkv_proj'), ...step('attention', 66), ...of('o_proj'), ...step(after && 'norm', 44)],
    [...step(beforeMlp && 'norm', 44), ...of('gate_proj', 'up_proj', 'gate_up_proj'), ...step('gate × up', 66), ...of('down_proj'), ...step(afterMlp && 'norm', 44)]
  ];
}

function sideways(blocks: Stage[][], width: number, part: number, gap: number): Layout {
  const line = 16;
  const tallest = Math.max(...blocks.flat().map(stage => stage.items.length));
  const inside = tallest * PART_HEIGHT + (tallest - 1) * BETWEEN;
  const middle = line + 22 + inside / 2;
  const drawn: Layout = { wide: true, width, height: line + 22 + inside + 6, boxes: [], wires: [], sums: [], residual: [[4, line], [width - 4, line]] };
  let at = 12;
  for (const stages of blocks) {
    const tap = at + gap / 2;
    at += gap;
    let before: Box[] = [];
    for (const stage of stages) {
      const size = stage.step || part;
      const high = stage.step ? 28 : PART_HEIGHT;
      const whole = stage.items.length * (high + BETWEEN) - BETWEEN;
      const here = stage.items.map((item, index): Box => ({ ...item, x: at, y: middle - whole / 2 + index * (high + BETWEEN), width: size, height: high }));
      if (before.length) {
        drawn.wires.push(...join(before, here, box => [box.x + box.width, box.y + box.height / 2], box => [box.x, box.y + box.height / 2], true));
      } else {
        drawn.wires.push(...here.map((box): Point[] => [[tap, line], [tap, box.y + box.height / 2], [box.x, box.y + box.height / 2]]));
      }
      drawn.boxes.push(...here);
      before = here;
      at += size + gap;
    }
    const sum = at - gap / 2;
    drawn.wires.push(...before.map((box): Point[] => [[box.x + box.width, box.y + box.height / 2], [sum, box.y + box.height / 2], [sum, line]]));
    drawn.sums.push([sum, line]);
  }
  return drawn;
}

function downwards(blocks: Stage[][], width: number): Layout {
  const line = 12;
  const left = 34;
  const room = width - left - 4;
  const gap = 16;
  const drawn: Layout = { wide: false, width, height: 0, boxes: [], wires: [], sums: [], residual: [[line, 4], [line, 4]] };
  let at = 6;
  for (const stages of blocks) {
    const tap = at + 4;
    at += gap + 4;
    let before: Box[] = [];
    for (const stage of stages) {
      const high = stage.step ? 24 : PART_HEIGHT;
      const count = stage.items.length;
      const size = stage.step ? Math.min(120, room) : (room - (count - 1) * BETWEEN) / count;
      const whole = count * (size + BETWEEN) - BETWEEN;
      const here = stage.items.map((item, index): Box => ({ ...item, x: left + (room - whole) / 2 + index * (size + BETWEEN), y: at, width: size, height: high }));
      if (before.length) {
        drawn.wires.push(...join(before, here, box => [box.x + box.width / 2, box.y + box.height], box => [box.x + box.width / 2, box.y], false));
      } else {
        drawn.wires.push(...here.map((box): Point[] => [[line, tap], [box.x + box.width / 2, tap], [box.x + box.width / 2, box.y]]));
      }
      drawn.boxes.push(...here);
      before = here;
      at += high + gap;
    }
    const sum = at - 4;
    drawn.wires.push(...before.map((box): Point[] => [[box.x + box.width / 2, box.y + box.height], [box.x + box.width / 2, sum], [line, sum]]));
    drawn.sums.push([line, sum]);
    at = sum + 18;
  }
  drawn.height = at + 6;
  drawn.residual = [[line, 4], [line, at + 2]];
  return drawn;
}

function join(from: Box[], to: Box[], end: (box: Box) => Point, start: (box: Box) => Point, wide: boolean): Point[][] {
  return from.flatMap(one =>
    to.map((other): Point[] => {
      const [a, b] = [end(one), start(other)];
      const half = wide ? (a[0] + b[0]) / 2 : (a[1] + b[1]) / 2;
      return wide ? [a, [half, a[1]], [half, b[1]], b] : [a, [a[0], half], [b[0], half], b];
    })
  );
}
