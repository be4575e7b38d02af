/** Which tensor of a dynamic GGUF got which type and why, as a map of the layers; and how good it is. */

import { freshId, h, setText } from '../dom.ts';
import type { Cleanup } from '../model.ts';
import { onWidth, s } from '../svg.ts';
import type { Measured, Mix, MixTensor } from './state.ts';

const [ROW, HEAD, GAP] = [20, 22, 2];
const NARROW = 480; // pixels of the map below which layers are told by their number alone
const LEAST_FOR_WORDS = 38; // pixels of a cell in which a type's name is written
const WIDEST = 104; // pixels of a cell
/** Bits a weight from which the colours begin; the last is for 16 bit. */
const STEPS = [0, 3, 4, 4.75, 6, 8, 12];

/** The columns of the map, its rows (-1 is what belongs to no layer), and what is where. */
export interface MixMap {
  roles: string[];
  rows: number[];
  at: (row: number, column: number) => MixTensor | undefined;
}

/** Attention and MLP in the file's order; what belongs to no layer stands in the first columns of its row. */
export function mixMap(tensors: readonly MixTensor[]): MixMap {
  const inLayers = tensors.filter(one => one.layer >= 0);
  const outside = tensors.filter(one => one.layer < 0);
  const roles = [...new Set(inLayers.map(one => one.role))];
  const rows = [...new Set(tensors.map(one => one.layer))].sort((one, other) => one - other);
  const cells = new Map(inLayers.map(one => [`${one.layer} ${one.role}`, one]));
  const at = (row: number, column: number): MixTensor | undefined =>
    rows[row] === -1 ? outside[column] : cells.get(`${rows[row]} ${roles[column]}`);
  return { roles: roles.length ? roles : outside.map(one => one.role), rows, at };
}

/** Which of the colours stands for so many bits a weight. */
export function step(bits: number): number {
  return STEPS.findLastIndex(least => bits >= least);
}

/** "layer 3, ffn_down" */
export function placeWords(one: MixTensor): string {
  return one.layer < 0 ? `${one.role}, for all layers` : `layer ${one.layer}, ${one.role}`;
}

/** Type, bits, size and error, and what llama.cpp's mix has where that is another type. */
export function typeWords(one: MixTensor): string {
  const stock = one.stock && one.stock !== one.type ? ` llama.cpp's mix has ${one.stock} here.` : '';
  return `${one.type}: ${one.bits} bits a weight, ${one.size}, costs about ${one.error.toExponential(1)} nats a token.${stock}`;
}

/** By how much it is closer than llama.cpp's mix of the size, or that it is not. */
export function gainWords(mix: Mix): string {
  const stock = mix.measured[1]?.name;
  if (!stock || mix.gain === null) {
    return 'No mix of llama.cpp is that small.';
  }
  return mix.used
    ? `${Math.round(100 * mix.gain)} % less divergence than ${stock}, llama.cpp's mix of this size.`
    : `${stock}, llama.cpp's mix of this size, was as close, so that is what was written.`;
}

/** The fold with the figures and the map. */
export function mixView(mix: Mix, cleanup: Cleanup): HTMLElement {
  return h(
    'details',
    { class: 'tb-mix', open: true },
    h('summary', {}, 'Which layer got which type, and why'),
    h('div', { class: 'tb-mix-body' }, h('p', { class: 'tb-mix-gain' }, gainWords(mix)), figures(mix), h('p', { class: 'tb-muted' }, mix.about), map(mix, cleanup))
  );
}

function figures(mix: Mix): HTMLElement {
  const titles = ['Mix', 'Size', 'Mean', '99 %', '99.9 %', 'Same token'];
  const row = (one: Measured): HTMLElement =>
    h(
      'tr',
      { class: (one.name === mix.name) === mix.used ? 'tb-mix-written' : '' },
      h('th', { scope: 'row' }, one.name),
      ...[one.size, nats(one.mean), nats(one.percentile_99), nats(one.percentile_99_9), `${(100 * one.same_top).toFixed(1)} %`].map(text => h('td', {}, text))
    );
  return h(
    'div',
    { class: 'tb-mix-table', tabindex: 0, role: 'group', 'aria-label': 'How close each mix is' },
    h(
      'table',
      {},
      h('caption', {}, "Divergence of the next token's probabilities, in nats"),
      h('thead', {}, h('tr', {}, ...titles.map(title => h('th', { scope: 'col' }, title)))),
      h('tbody', {}, ...mix.measured.map(row))
    )
  );
}

function nats(value: number): string {
  return value < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

/** The map: pointing at a cell, or the arrow keys, tell of its tensor below. */
function map(mix: Mix, cleanup: Cleanup): HTMLElement {
  const told = mixMap(mix.tensors);
  const prefix = freshId('mix');
  const grid = s('svg', { class: 'tb-mix-map', role: 'grid', tabindex: 0, 'aria-label': 'Types by layer; the arrow keys go from tensor to tensor' });
  const name = h('p', { class: 'tb-mix-name' });
  const type = h('p', {});
  const why = h('p', { class: 'tb-muted' });
  let active: [number, number] = [-1, -1];
  const id = (row: number, column: number): string => `${prefix}-${row}-${column}`;
  const cell = (row: number, column: number): Element | null => grid.querySelector(`#${id(row, column)}`);
  const show = (row: number, column: number): void => {
    const one = told.at(row, column);
    setText(name, one ? one.name : '');
    setText(type, one ? typeWords(one) : '');
    setText(why, one ? one.why : 'Point at a tensor, or go from one to another with the arrow keys.');
  };
  const activate = (row: number, column: number): void => {
    cell(...active)?.setAttribute('aria-selected', 'false');
    active = [row, column];
    const found = cell(row, column);
    found?.setAttribute('aria-selected', 'true');
    found?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    if (found) {
      grid.setAttribute('aria-activedescendant', found.id);
    } else {
      grid.removeAttribute('aria-activedescendant');
    }
    show(row, column);
  };
  const placeOf = (target: EventTarget | null): [number, number] => {
    const data = (target as Element | null)?.closest<SVGElement>('[data-row]')?.dataset;
    return data ? [Number(data['row']), Number(data['column'])] : active;
  };
  grid.addEventListener('pointerover', event => show(...placeOf(event.target)));
  grid.addEventListener('pointerleave', () => show(...active));
  grid.addEventListener('click', event => activate(...placeOf(event.target)));
  grid.addEventListener('focus', () => active[0] < 0 && activate(0, 0));
  grid.addEventListener('keydown', event => {
    const to = moved(told, active, event.key);
    if (to && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      activate(...to);
    }
  });
  const place = h('div', { class: 'tb-mix-place' });
  place.append(grid);
  onWidth(place, width => {
    draw(grid, told, width, id);
    cell(...active)?.setAttribute('aria-selected', 'true');
  }, cleanup);
  show(-1, -1);
  return h('div', { class: 'tb-mix-picture' }, legend(mix), place, h('div', { class: 'tb-mix-said', role: 'status' }, name, type, why));
}

/** Where a key leads from a cell: the next tensor in that direction, or nowhere. */
export function moved(told: MixMap, [row, column]: readonly [number, number], key: string): [number, number] | null {
  const by: Record<string, [number, number]> = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const last = Math.max(0, told.roles.length - 1);
  if (key === 'Home' || key === 'End') {
    const columns = Array.from({ length: last + 1 }, (_, at) => (key === 'Home' ? at : last - at));
    const found = columns.find(at => told.at(row, at));
    return found === undefined ? null : [row, found];
  }
  const way = by[key];
  if (!way) {
    return null;
  }
  let [r, c] = [row + way[0], column + way[1]];
  while (r >= 0 && r < told.rows.length && c >= 0 && c <= last) {
    if (told.at(r, c)) {
      return [r, c];
    }
    if (way[0]) {
      [r, c] = told.at(r, 0) && told.rows[r] === -1 ? [r, 0] : [r + way[0], c];
    } else {
      c += way[1];
    }
  }
  return [row, column];
}

function draw(grid: SVGSVGElement, told: MixMap, width: number, id: (row: number, column: number) => string): void {
  const columns = told.roles.length;
  const left = width < NARROW ? 28 : 58;
  const wide = Math.min(WIDEST, (width - left) / Math.max(1, columns));
  const height = HEAD + ROW * told.rows.length;
  grid.setAttribute('width', String(Math.floor(left + wide * columns)));
  grid.setAttribute('height', String(height));
  const words = wide >= LEAST_FOR_WORDS;
  const heads = told.roles.map((role, at) =>
    s('g', { role: 'columnheader', 'aria-label': role }, s('text', { class: 'tb-tick', x: left + wide * (at + 0.5), y: HEAD - 8, 'text-anchor': 'middle' }, shortRole(role, wide)))
  );
  const lines = told.rows.map((layer, row) => {
    const y = HEAD + ROW * row;
    const label = layer < 0 ? 'all' : width < NARROW ? String(layer) : `layer ${layer}`;
    const head = s('g', { role: 'rowheader', 'aria-label': layer < 0 ? 'for all layers' : `layer ${layer}` }, s('text', { class: 'tb-tick', x: left - 8, y: y + 14, 'text-anchor': 'end' }, label));
    const cells = told.roles.flatMap((_, column) => {
      const one = told.at(row, column);
      return one ? [drawCell(one, id(row, column), row, column, left + wide * column, y, wide, words)] : [];
    });
    return s('g', { role: 'row' }, head, ...cells);
  });
  grid.replaceChildren(s('g', { role: 'row' }, s('g', { role: 'columnheader' }, s('text', { class: 'tb-tick', x: 0, y: HEAD - 8 }, 'layer')), ...heads), ...lines);
}

function drawCell(one: MixTensor, id: string, row: number, column: number, x: number, y: number, wide: number, words: boolean): SVGElement {
  const said = `${placeWords(one)}: ${typeWords(one)} ${one.why}`;
  const cell = s(
    'g',
    { id, class: `tb-mix-cell tb-bits-${step(one.bits)}`, role: 'gridcell', 'aria-selected': 'false', 'aria-label': said, 'data-row': row, 'data-column': column },
    s('rect', { x: x + GAP / 2, y: y + GAP / 2, width: Math.max(1, wide - GAP), height: ROW - GAP, rx: 3 })
  );
  if (words) {
    const title = one.layer < 0 && wide >= WIDEST * 0.8 ? `${one.role === 'token_embd' ? 'embedding' : one.role} ${one.type}` : one.type;
    cell.append(s('text', { x: x + wide / 2, y: y + 14, 'text-anchor': 'middle' }, title));
  }
  return cell;
}

/** "attn_output" as "attn_out" or "a_out" where there is little room. */
function shortRole(role: string, wide: number): string {
  const short = role.replace('output', 'out').replace('_exps', '');
  return wide >= 60 ? short : short.replace(/^attn_/, '').replace(/^ffn_/, '');
}

/** The types in the map from fewest bits to most, each with its colour. */
function legend(mix: Mix): HTMLElement {
  const types = new Map(mix.tensors.map(one => [one.type, one.bits]));
  const keys = [...types].sort(([, one], [, other]) => one - other);
  return h(
    'ul',
    { class: 'tb-mix-legend', 'aria-label': 'Bits a weight' },
    ...keys.map(([type, bits]) => h('li', {}, h('span', { class: `tb-mix-key tb-bits-${step(bits)}`, 'aria-hidden': 'true' }), `${type}, ${bits} bits`))
  );
}
