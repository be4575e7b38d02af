/** One row in all its stages: raw, messages, text, tokens, and where training puts it. */

import { button, h, setText, toggle } from '../dom.ts';
import { count } from '../format.ts';
import { threeParts } from '../frame.ts';
import { follow, type Cleanup } from '../model.ts';
import { shown, visible } from '../visible.ts';
import { tabs } from '../tabs.ts';
import { tokenStage } from './compare.ts';
import { messagesStage } from './messages.ts';
import { countsText, type Model, type Placement, type StageName } from './state.ts';

const STAGES = [
  { name: 'raw', title: 'Raw' },
  { name: 'messages', title: 'Messages' },
  { name: 'text', title: 'Text' },
  { name: 'tokens', title: 'Tokens' },
  { name: 'packed', title: 'In training' }
] as const;

export function rowView(model: Model, cleanup: Cleanup): HTMLElement {
  const choose = (name: StageName): void => {
    model.set('stage', name);
    model.save_changes();
  };
  const bar = tabs('The stages of this row', STAGES, choose);
  const views: Record<StageName, HTMLElement> = {
    raw: rawStage(model, cleanup),
    messages: messagesStage(model, cleanup),
    text: textStage(model, cleanup),
    tokens: tokenStage(model, cleanup),
    packed: packedStage(model, cleanup)
  };
  const wrong = h('div');
  bar.panel.append(wrong, ...Object.values(views));
  const draw = (): void => {
    const stage = model.get('stage');
    const error = model.get('row_error');
    const failed = error.what ? STAGES.findIndex(item => item.name === error.stage) : STAGES.length;
    const missing = STAGES.slice(failed, 4).map(item => item.name);
    bar.show(stage);
    bar.warn(missing);
    const fails = missing.includes(stage as (typeof missing)[number]);
    wrong.replaceChildren(...(fails ? [threeParts(error)] : []));
    for (const { name } of STAGES) {
      toggle(views[name], name === stage && !fails);
    }
  };
  follow(model, ['stage', 'row_error'], draw, cleanup);
  return h('div', { class: 'tb-row' }, pager(model, cleanup), bar.bar, bar.panel);
}

function pager(model: Model, cleanup: Cleanup): HTMLElement {
  const step = (by: number): void => model.send({ type: 'step', by });
  const number = h('input', { type: 'text', class: 'tb-input tb-row-number', inputmode: 'numeric', 'aria-label': 'Row number' });
  const go = (): void => model.send({ type: 'row', row: Number.parseInt(number.value, 10) - 1 || 0 });
  number.addEventListener('change', go);
  number.addEventListener('keydown', event => event.key === 'Enter' && go());
  const total = h('span', { class: 'tb-muted' });
  const back = button('‹', () => step(-1), { 'aria-label': 'Previous row', class: 'tb-button tb-square' });
  const next = button('›', () => step(1), { 'aria-label': 'Next row', class: 'tb-button tb-square' });
  const counts = h('span', { class: 'tb-muted tb-counts', role: 'status' });
  const draw = (): void => {
    const [row, rows, place, listed] = [model.get('row'), model.get('rows'), model.get('place'), model.get('listing').total ?? 0];
    number.value = String(row + 1);
    setText(total, `of ${count(rows)}`);
    back.disabled = place === 0 || rows === 0;
    next.disabled = place === listed - 1 || rows === 0;
    setText(counts, countsText(model.get('counts')));
  };
  follow(model, ['row', 'rows', 'place', 'listing', 'counts'], draw, cleanup);
  return h('div', { class: 'tb-pager' }, back, h('span', {}, 'Row'), number, total, next, counts);
}

function rawStage(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('dl', { class: 'tb-raw' });
  const draw = (): void => {
    const items = Object.entries(model.get('raw')).map(([name, value]) => {
      const plain = typeof value === 'string';
      const text = plain ? value : JSON.stringify(value, null, 2);
      return h('div', {}, h('dt', {}, ...shown(name)), h('dd', { class: plain ? 'tb-raw-text' : 'tb-raw-text tb-raw-data', dir: 'auto' }, ...shown(text)));
    });
    list.replaceChildren(...items);
  };
  follow(model, ['raw'], draw, cleanup);
  return list;
}

function textStage(model: Model, cleanup: Cleanup): HTMLElement {
  const box = h('div', { class: 'tb-text', tabindex: 0, role: 'region', 'aria-label': 'The text that the template makes' });
  const draw = (): void =>
    box.replaceChildren(
      ...model.get('text').map(([text, turn, role, trained]) =>
        h('span', { class: `tb-piece ${trained ? 'trained' : turn < 0 ? 'template' : 'read'}`, title: turn < 0 ? 'the template' : visible(role) }, ...shown(text))
      )
    );
  follow(model, ['text'], draw, cleanup);
  const key = (kind: string, text: string): HTMLElement => h('span', { class: 'tb-token-key' }, h('span', { class: `tb-piece ${kind}`, 'aria-hidden': 'true' }, 'Aa'), text);
  return h('div', {}, h('p', { class: 'tb-token-legend' }, key('trained', 'learned'), key('read', 'a turn, only read'), key('template', 'written by the template')), box);
}

function packedStage(model: Model, cleanup: Cleanup): HTMLElement {
  const node = h('div', { class: 'tb-placement' });
  const draw = (): void => node.replaceChildren(...placement(model, model.get('packed'), model.get('row')));
  follow(model, ['packed', 'row'], draw, cleanup);
  return node;
}

/** What the words say, drawn: this row among its neighbours or with what it is filled up with. */
function placement(model: Model, packed: Partial<Placement>, row: number): HTMLElement[] {
  const { length = 0, capacity = 0, rows = [], padded, words = '' } = packed;
  const said = h('p', {}, words);
  if (packed.state === 'batched') {
    return [said, strip(capacity, [{ start: 0, length, own: true }, { start: length, length: (padded ?? length) - length, own: false }])];
  }
  if (packed.state === 'packed') {
    const list = h('ul', { class: 'tb-neighbours', 'aria-label': 'Rows in this sequence' }, ...rows.map(item => neighbour(model, item, item.row === row)));
    return [said, strip(capacity, rows.map(item => ({ ...item, own: item.row === row }))), list];
  }
  return [said];
}

function neighbour(model: Model, item: Placement['rows'][number], own: boolean): HTMLElement {
  const words = `row ${count(item.row + 1)}`;
  const name = own ? h('strong', {}, words) : button(words, () => model.send({ type: 'row', row: item.row }), { class: 'tb-link' });
  return h('li', {}, name, h('span', { class: 'tb-muted' }, ` ${count(item.length)} tokens`));
}

function strip(capacity: number, parts: { start: number; length: number; own: boolean }[]): HTMLElement {
  const share = (length: number): string => `${((100 * length) / Math.max(1, capacity)).toFixed(3)}%`;
  const pieces = parts.map(part => {
    const piece = h('span', { class: part.own ? 'tb-strip-own' : 'tb-strip-other' });
    piece.style.insetInlineStart = share(part.start);
    piece.style.width = share(part.length);
    return piece;
  });
  return h('div', { class: 'tb-strip', 'aria-hidden': 'true' }, ...pieces);
}
