/** What a model file says of itself: facts, tensors by type, metadata, template. Draws; asks nobody. */

import { h, freshId, setText } from './dom.ts';
import { bytes, count } from './format.ts';
import { codeBlock } from './frame.ts';

export interface TypeShare {
  type: string;
  tensors: number;
  parameters: number;
  bytes: number;
  bits: number;
}

export interface Inspection {
  path: string;
  kind: 'gguf' | 'adapter' | 'model' | 'weights';
  title: string;
  format: string;
  bytes: number;
  parameters: number;
  facts: [string, string][];
  metadata: { key: string; type: string; text: string }[];
  types: TypeShare[];
  tensor_count: number;
  tensors: { name: string; type: string; shape: number[]; bytes: number }[];
  chat_template: string;
}

/** The little of a translation that is needed. */
export interface Translator {
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, count: number, ...values: unknown[]): string;
}

/** The colours of the forecast's parts, in the order in which types get them. */
const COLOURS = ['weights', 'adapters', 'activations', 'optimizer', 'embeddings', 'gradients', 'logits'];
const MOST_ROWS = 300;
const MOST_UNFILTERED = 12;

/** The whole view. */
export function inspectionView(told: Inspection, trans: Translator): HTMLElement {
  return h(
    'div',
    { class: 'tb-body tb-inspection', 'data-kind': told.kind },
    headline(told, trans),
    facts(told),
    tensorTypes(told, trans),
    metadata(told, trans),
    tensors(told, trans),
    template(told, trans),
    sameCode(told, trans)
  );
}

/** What kind of file it is, in words. */
export function kindWords(kind: Inspection['kind'], trans: Translator): string {
  const words = {
    gguf: trans.__('Model for llama.cpp and Ollama'),
    adapter: trans.__('Adapter'),
    model: trans.__('Model folder'),
    weights: trans.__('Weights')
  };
  return words[kind];
}

/** Text of a file with a sign in place of what would not be seen, or would turn the line around. */
export function seen(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** The share of each type in all bytes, at least a hair's breadth wide, in percent of the bar. */
export function shares(types: readonly TypeShare[]): number[] {
  const total = types.reduce((sum, each) => sum + each.bytes, 0);
  const wide = types.map(each => Math.max(total ? each.bytes / total : 0, 0.004));
  const sum = wide.reduce((one, other) => one + other, 0);
  return wide.map(each => (100 * each) / sum);
}

/** Rows whose text holds every word typed, whatever the case. */
export function matching<T>(rows: readonly T[], words: string, text: (row: T) => string): T[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(row => {
    const given = text(row).toLowerCase();
    return wanted.every(word => given.includes(word));
  });
}

function headline(told: Inspection, trans: Translator): HTMLElement {
  const parts = [kindWords(told.kind, trans), told.format, bytes(told.bytes)];
  return h(
    'header',
    { class: 'tb-inspection-head' },
    h('h2', { dir: 'auto' }, seen(told.title)),
    h('p', { class: 'tb-muted' }, parts.filter(Boolean).join(' · ')),
    h('p', { class: 'tb-muted tb-inspected', dir: 'auto' }, seen(told.path))
  );
}

function facts(told: Inspection): HTMLElement {
  const list = h('dl', { class: 'tb-facts' });
  for (const [label, text] of told.facts) {
    list.append(h('div', {}, h('dt', {}, label), h('dd', { dir: 'auto' }, seen(text))));
  }
  return list;
}

function tensorTypes(told: Inspection, trans: Translator): HTMLElement {
  const words = told.types.map(each => `${each.type} ${bytes(each.bytes)}`).join(', ');
  const bar = h('div', { class: 'tb-bar', role: 'img', 'aria-label': words });
  const widths = shares(told.types);
  told.types.forEach((each, at) => {
    const piece = h('span', { class: `tb-piece ${colour(at)}`, title: `${each.type}: ${bytes(each.bytes)}` });
    piece.style.width = `${widths[at] ?? 0}%`;
    bar.append(piece);
  });
  const rows = told.types.map((each, at) => [
    h('span', { class: 'tb-type' }, h('span', { class: `tb-swatch ${colour(at)}`, 'aria-hidden': 'true' }), each.type),
    count(each.tensors),
    count(each.parameters),
    each.bits.toFixed(2),
    bytes(each.bytes)
  ]);
  const titles = [trans.__('Type'), trans.__('Tensors'), trans.__('Parameters'), trans.__('Bits each'), trans.__('Size')];
  return section(
    trans.__('Tensors by type'),
    told.types.length ? h('div', { class: 'tb-sheet' }, bar, table(trans.__('Tensors by type'), titles, rows, 'tb-figures-table')) : nothing(trans.__('It holds no tensors.'))
  );
}

function metadata(told: Inspection, trans: Translator): HTMLElement {
  const title = trans.__('Metadata');
  if (!told.metadata.length) {
    return section(title, nothing(trans.__('It says nothing else of itself.')));
  }
  const titles = [trans.__('Key'), trans.__('Value')];
  const draw = (entry: Inspection['metadata'][number]): Cell[] => [
    h('span', { class: 'tb-mono', dir: 'auto', title: entry.type }, ...breakable(seen(entry.key))),
    h('span', { class: 'tb-value', dir: 'auto' }, seen(entry.text))
  ];
  return fold(title, told.metadata.length, true, () =>
    filtered(title, titles, told.metadata, entry => `${entry.key} ${entry.text}`, draw, told.metadata.length, trans)
  );
}

function tensors(told: Inspection, trans: Translator): HTMLElement | null {
  if (!told.tensors.length) {
    return null;
  }
  const title = trans.__('All tensors');
  const titles = [trans.__('Name'), trans.__('Type'), trans.__('Shape'), trans.__('Size')];
  const draw = (tensor: Inspection['tensors'][number]): Cell[] => [
    h('span', { class: 'tb-mono', dir: 'auto' }, ...breakable(seen(tensor.name))),
    tensor.type,
    tensor.shape.join(' × ') || trans.__('one number'),
    bytes(tensor.bytes)
  ];
  return fold(title, told.tensor_count, false, () =>
    filtered(title, titles, told.tensors, tensor => `${tensor.name} ${tensor.type}`, draw, told.tensor_count, trans)
  );
}

function template(told: Inspection, trans: Translator): HTMLElement {
  const title = trans.__('Chat template');
  if (!told.chat_template) {
    const why = told.kind === 'weights' ? trans.__('A file of weights holds none; look for it beside the file.') : trans.__('It has none: programs have to be told how a conversation is written.');
    return section(title, nothing(why));
  }
  const block = codeBlock('Jinja', told.chat_template);
  block.box.classList.add('tb-template');
  return section(title, block.box);
}

function sameCode(told: Inspection, trans: Translator): HTMLElement {
  const path = JSON.stringify(told.path);
  const python = codeBlock('Python', `import tunebook\n\nprint(tunebook.inspect_file(${path}))`);
  const shell = codeBlock('Shell', `tunebook inspect --all ${/^[\w./-]+$/.test(told.path) ? told.path : `'${told.path.replaceAll("'", `'\\''`)}'`}`);
  return h('details', { class: 'tb-code' }, h('summary', {}, trans.__('Show the code')), python.box, shell.box);
}

type Cell = Node | string;

function section(title: string, ...children: (Node | null)[]): HTMLElement {
  const id = freshId('section');
  return h('section', { class: 'tb-part', 'aria-labelledby': id }, h('h3', { id }, title), ...children);
}

/** A section that is drawn when it is first opened. */
function fold(title: string, number: number, open: boolean, draw: () => HTMLElement): HTMLElement {
  const heading = h('h3', {}, title, ' ', h('span', { class: 'tb-muted' }, count(number)));
  const details = h('details', { class: 'tb-part', open }, h('summary', {}, heading));
  const fill = (): void => {
    if (details.open && details.childElementCount === 1) {
      details.append(draw());
    }
  };
  details.addEventListener('toggle', fill);
  fill();
  return details;
}

function filtered<T>(
  title: string,
  titles: string[],
  rows: readonly T[],
  text: (row: T) => string,
  draw: (row: T) => Cell[],
  total: number,
  trans: Translator
): HTMLElement {
  const field = h('input', { type: 'search', class: 'tb-input', placeholder: trans.__('Filter'), 'aria-label': trans.__('Filter: %1', title) });
  const note = h('p', { class: 'tb-muted', role: 'status' });
  const place = h('div', { class: 'tb-table-place', tabindex: 0, role: 'region', 'aria-label': title });
  const show = (): void => {
    const found = matching(rows, field.value, text);
    const shown = found.slice(0, MOST_ROWS);
    place.replaceChildren(table(title, titles, shown.map(draw), titles.length === 2 ? 'tb-keys-table' : ''));
    const all = field.value.trim() ? found.length : total;
    const words =
      shown.length < all
        ? trans.__('%1 of %2 are shown: filter to find the others.', count(shown.length), count(all))
        : field.value.trim()
          ? trans.__('%1 of %2', count(all), count(total))
          : '';
    setText(note, words);
  };
  field.addEventListener('input', show);
  show();
  return h('div', { class: 'tb-filtered' }, rows.length > MOST_UNFILTERED ? field : null, place, note);
}

function table(title: string, titles: string[], rows: Cell[][], kind = ''): HTMLElement {
  const head = h('tr', {}, ...titles.map(name => h('th', { scope: 'col' }, name)));
  const body = rows.map(cells => h('tr', {}, ...cells.map((cell, at) => (at ? h('td', {}, cell) : h('th', { scope: 'row' }, cell)))));
  return h('table', { class: `tb-table ${kind}`, 'aria-label': title }, h('thead', {}, head), h('tbody', {}, ...body));
}

/** A name that is broken after its dots and underscores where it must be. */
function breakable(name: string): (Node | string)[] {
  return name.split(/(?<=[._])/).flatMap((part, at) => (at ? [h('wbr'), part] : [part]));
}

function nothing(text: string): HTMLElement {
  return h('p', { class: 'tb-muted' }, text);
}

function colour(at: number): string {
  return `tb-part-${COLOURS[at] ?? 'scratch'}`;
}
