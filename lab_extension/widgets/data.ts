/** The data panel: the source, what is wrong with it, and one row as messages and as tokens. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { count } from '../ui/format.ts';
import { definePanel, threeParts } from '../ui/frame.ts';
import { follow, type AnyModel, type Cleanup, type PanelState, type ThreePartError } from '../ui/model.ts';

type Token = [text: string, id: number, kind: string];

interface Finding {
  severity: 'error' | 'warning' | 'info';
  title: string;
  count: number;
  examples: number[];
  do: string;
}

interface DataState extends PanelState {
  format: { name?: string; words?: string };
  rows: number;
  row: number;
  conversation: { role: string; content: string }[];
  tokens: Token[];
  counts: { tokens?: number; trained?: number; truncated?: boolean; shown?: number };
  statistics: { rows?: number; tokens?: number; trained_share?: number; truncated?: number; mean_length?: number; longest?: number };
  findings: Finding[];
  row_error: ThreePartError;
}

type Model = AnyModel<DataState>;

export default definePanel<DataState>('data', ({ model, body, cleanup }) => {
  body.append(
    source(model, cleanup),
    form(model, cleanup, { groups: false, fold: 'Settings of the data' }),
    statistics(model, cleanup),
    findings(model, cleanup),
    rowView(model, cleanup)
  );
  if (!model.get('rows') && !model.get('error').what) {
    model.send({ type: 'seen' });
  }
});

function source(model: Model, cleanup: Cleanup): HTMLElement {
  const id = freshId('source');
  const input = h('input', { type: 'text', id, class: 'tb-input', autocomplete: 'off', spellcheck: 'false' });
  const format = h('p', { class: 'tb-muted tb-format', role: 'status' });
  const use = (): void => model.send({ type: 'source', source: input.value });
  input.addEventListener('keydown', event => event.key === 'Enter' && use());
  const draw = (): void => {
    if (document.activeElement !== input) {
      input.value = String(model.get('values')['data.source'] ?? '');
    }
    setText(format, model.get('format').words ?? '');
  };
  follow(model, ['values', 'format'], draw, cleanup);
  const label = h('label', { class: 'tb-label', for: id }, 'File, Hugging Face dataset or tunebook-demo');
  const controls = h('div', { class: 'tb-control' }, input, button('Read', use));
  return h('div', { class: 'tb-field', 'data-field': 'data.source' }, label, controls, format);
}

function statistics(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('dl', { class: 'tb-stats' });
  const draw = (): void => {
    const all = model.get('statistics');
    list.replaceChildren();
    toggle(list, all.rows !== undefined);
    const add = (name: string, value: string): void => list.append(h('div', {}, h('dt', {}, name), h('dd', {}, value)));
    if (all.rows !== undefined) {
      add('Rows', count(all.rows));
      add('Tokens', count(all.tokens ?? 0));
      add('Trained', `${(100 * (all.trained_share ?? 0)).toFixed(0)} %`);
      add('Mean length', count(all.mean_length ?? 0));
      add('Longest', count(all.longest ?? 0));
      add('Cut off', count(all.truncated ?? 0));
    }
  };
  follow(model, ['statistics'], draw, cleanup);
  return list;
}

function findings(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('ul', { class: 'tb-findings', 'aria-label': 'What the checks found' });
  const draw = (): void => {
    const items = model.get('findings').map(item => {
      const places = item.examples.slice(0, 5).map(row =>
        button(`row ${row + 1}`, () => model.send({ type: 'row', row }), { class: 'tb-link' })
      );
      return h(
        'li',
        { class: `tb-finding tb-${item.severity}` },
        h('span', { class: 'tb-finding-kind' }, item.severity),
        h('div', {}, h('p', {}, item.title), h('p', { class: 'tb-muted' }, item.do, ' ', ...places))
      );
    });
    list.replaceChildren(...items);
    toggle(list, items.length > 0);
  };
  follow(model, ['findings'], draw, cleanup);
  return list;
}

function rowView(model: Model, cleanup: Cleanup): HTMLElement {
  const go = (row: number): void => model.send({ type: 'row', row });
  const number = h('input', { type: 'text', class: 'tb-input tb-row-number', inputmode: 'numeric', 'aria-label': 'Row number' });
  number.addEventListener('change', () => go(Number.parseInt(number.value, 10) - 1 || 0));
  const total = h('span', { class: 'tb-muted' });
  const back = button('‹', () => go(model.get('row') - 1), { 'aria-label': 'Previous row', class: 'tb-button tb-square' });
  const next = button('›', () => go(model.get('row') + 1), { 'aria-label': 'Next row', class: 'tb-button tb-square' });
  const counts = h('span', { class: 'tb-muted tb-counts', role: 'status' });
  const messages = h('div', { class: 'tb-conversation' });
  const tokens = h('div', { class: 'tb-tokens', tabindex: 0, role: 'region', 'aria-label': 'Tokens of this row' });
  const wrong = h('div');
  const node = h(
    'div',
    { class: 'tb-row' },
    h('div', { class: 'tb-pager' }, back, h('span', {}, 'Row'), number, total, next, counts),
    wrong,
    h('div', { class: 'tb-columns' }, column('As messages', messages), column('As tokens', legend(), tokens))
  );
  const draw = (): void => {
    const [row, rows] = [model.get('row'), model.get('rows')];
    toggle(node, rows > 0);
    number.value = String(row + 1);
    setText(total, `of ${count(rows)}`);
    back.disabled = row <= 0;
    next.disabled = row >= rows - 1;
    setText(counts, countsText(model.get('counts')));
    const error = model.get('row_error');
    wrong.replaceChildren(...(error.what ? [threeParts(error)] : []));
    messages.replaceChildren(...model.get('conversation').map(message));
    tokens.replaceChildren(...model.get('tokens').map(token));
  };
  follow(model, ['row', 'rows', 'conversation', 'tokens', 'counts', 'row_error'], draw, cleanup);
  return node;
}

function column(title: string, ...content: HTMLElement[]): HTMLElement {
  return h('div', { class: 'tb-column' }, h('h4', {}, title), ...content);
}

function legend(): HTMLElement {
  const item = (kind: string, text: string): HTMLElement => h('span', { class: 'tb-token-key' }, h('span', { class: `tb-token ${kind}` }, 'Aa'), text);
  return h('p', { class: 'tb-token-legend' }, item('trained', 'learned'), item('masked', 'only read'), item('masked special', 'special'));
}

function message(item: { role: string; content: string }): HTMLElement {
  return h(
    'div',
    { class: `tb-message-row tb-role-${['user', 'assistant', 'system'].includes(item.role) ? item.role : 'other'}` },
    h('span', { class: 'tb-role' }, item.role),
    h('p', {}, item.content)
  );
}

function token([text, id, kind]: Token): HTMLElement {
  const said = kind.includes('trained') ? 'learned' : 'only read';
  const shown = text.replaceAll('\n', '↵\n') || '∅';
  return h('span', { class: `tb-token ${kind}`, title: `token ${id}, ${said}` }, shown);
}

function countsText(counts: DataState['counts']): string {
  if (counts.tokens === undefined) {
    return '';
  }
  const trained = counts.trained ?? 0;
  const share = counts.tokens ? Math.round((100 * trained) / counts.tokens) : 0;
  const cut = counts.truncated ? ', cut off at the maximum length' : '';
  const part = (counts.shown ?? counts.tokens) < counts.tokens ? ` (the first ${count(counts.shown ?? 0)} are shown)` : '';
  return `${count(counts.tokens)} tokens, ${count(trained)} learned (${share} %)${cut}${part}`;
}
