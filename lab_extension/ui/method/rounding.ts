/** What the chosen number of bits does to this model's weights: their histogram and the levels. */

import { h, setText, toggle } from '../dom.ts';
import { percent } from '../format.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../model.ts';
import { onWidth, s, through } from '../svg.ts';

export interface Way {
  name: string;
  bits: number;
  error: number;
  scale: string;
  histogram: number[];
  levels: number[];
  used: number[];
}

export interface Rounding {
  tensor?: string;
  why?: string;
  ways?: Record<string, Way>;
}

export interface RoundingState extends PanelState {
  rounding: Rounding;
  stored_as: string;
}

const HEIGHT = 150;
const EDGE = { side: 8, top: 8, bottom: 20 };
/** In the order of the table; an object would put a number first. */
const TITLES: [string, string][] = [['16', '16 bit'], ['int8', '8 bit'], ['nf4', '4 bit, NF4'], ['fp4', '4 bit, FP4']];

export function roundingView(model: AnyModel<RoundingState>, cleanup: Cleanup): HTMLElement {
  const place = h('div', { class: 'tb-svg-place' });
  const about = h('figcaption', { class: 'tb-muted' });
  const table = h('ul', { class: 'tb-errors-of' });
  const source = h('p', { class: 'tb-muted tb-weights-of' });
  const node = h('figure', { class: 'tb-rounding' }, h('div', {}, place, about), h('div', {}, h('p', { class: 'tb-label' }, 'Rounding error, as a share of the weights'), table, source));
  let width = 320;
  const draw = (): void => {
    const { ways, tensor, why } = model.get('rounding');
    const key = model.get('stored_as');
    const way = ways?.[key];
    toggle(node, Boolean(ways && way));
    if (!ways || !way) {
      return;
    }
    place.replaceChildren(picture(way, width));
    setText(about, sentence(way));
    drawTable(table, ways, key);
    setText(source, tensor ? `Real weights of this model: ${tensor}.` : `${why ?? ''} A normal distribution stands in for them.`);
  };
  follow(model, ['rounding', 'stored_as'], draw, cleanup);
  onWidth(place, wide => { width = wide; draw(); }, cleanup);
  return node;
}

function sentence(way: Way): string {
  if (!way.levels.length) {
    return 'Kept as they are, to two to three decimal figures.';
  }
  const what = way.used.length ? `Each weight moves to the nearest of ${way.levels.length} values` : 'Each weight moves to the nearest of 255 even steps';
  return `${what}; 1 is the ${way.scale}.`;
}

function drawTable(table: HTMLElement, ways: Record<string, Way>, chosen: string): void {
  const most = Math.max(...Object.values(ways).map(way => way.error), 1e-9);
  table.replaceChildren(
    ...TITLES.flatMap(([key, title]) => {
      const way = ways[key];
      if (!way) {
        return [];
      }
      const fill = h('span');
      fill.style.width = `${Math.max(0.5, (100 * way.error) / most)}%`;
      return [h(
        'li',
        { 'data-way': key, 'aria-current': key === chosen ? 'true' : null },
        h('span', {}, title),
        h('span', { class: 'tb-rung-bar', 'aria-hidden': 'true' }, fill),
        h('span', { class: 'tb-number-cell' }, way.error === 0 ? 'none' : percent(way.error))
      )];
    })
  );
}

function picture(way: Way, width: number): SVGElement {
  const base = HEIGHT - EDGE.bottom;
  const high = base - EDGE.top;
  const wide = width - 2 * EDGE.side;
  const x = (value: number): number => EDGE.side + ((value + 1) / 2) * wide;
  const tallest = Math.max(...way.histogram, 1e-9);
  const bins = way.histogram.length;
  const outline: [number, number][] = way.histogram.flatMap((share, at): [number, number][] => {
    const y = base - (share / tallest) * high;
    return [[x(-1 + (2 * at) / bins), y], [x(-1 + (2 * (at + 1)) / bins), y]];
  });
  const label = `Histogram of the weights from -1 to 1. ${sentence(way)} Error ${percent(way.error)}.`;
  const svg = s('svg', { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': label });
  svg.append(s('path', { class: 'tb-histogram', d: `${through(outline)}L${x(1)} ${base}L${x(-1)} ${base}Z` }));
  if (way.used.length) {
    const mostUsed = Math.max(...way.used, 1e-9);
    way.levels.forEach((level, at) => {
      const top = base - ((way.used[at] ?? 0) / mostUsed) * high * 0.86;
      svg.append(
        s('line', { class: 'tb-level', x1: x(level), x2: x(level), y1: base, y2: top }),
        s('circle', { class: 'tb-level-dot', cx: x(level), cy: top, r: 2.5 })
      );
    });
  } else if (way.levels.length) {
    const comb = way.levels.map(level => `M${x(level).toFixed(1)} ${base}V${base - 7}`).join('');
    svg.append(s('path', { class: 'tb-comb', d: comb }));
  }
  svg.append(s('line', { class: 'tb-axis', x1: EDGE.side, x2: width - EDGE.side, y1: base + 0.5, y2: base + 0.5 }));
  for (const [value, anchor] of [[-1, 'start'], [0, 'middle'], [1, 'end']] as const) {
    svg.append(s('text', { class: 'tb-tick', x: x(value), y: HEIGHT - 5, 'text-anchor': anchor }, String(value)));
  }
  return svg;
}
