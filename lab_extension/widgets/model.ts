/** The model panel: the catalogue with a verdict for this machine, or any id or folder. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type AnyModel, type PanelState } from '../ui/model.ts';

interface Row {
  name: string;
  title: string;
  size: string;
  licence: string;
  context: string;
  verdict: '' | 'fits' | 'tight' | 'no';
  memory: string;
}

interface ModelState extends PanelState {
  models: Row[];
  hardware: string;
  about: { name?: string; catalogue?: string };
}

const VERDICTS = { '': '…', fits: 'fits', tight: 'tight', no: 'too large' };

export default definePanel<ModelState>('model', ({ model, body, cleanup }) => {
  const choose = (name: string): void => model.send({ type: 'choose', name });
  const free = freeField(model, choose);
  const hardware = h('p', { class: 'tb-muted' });
  const filter = h('input', { type: 'search', class: 'tb-input', placeholder: 'Filter the catalogue', 'aria-label': 'Filter the catalogue' });
  const list = h('div', { class: 'tb-models', role: 'radiogroup', 'aria-label': 'Models of the catalogue' });
  const none = h('p', { class: 'tb-muted', role: 'status' });
  const draw = (): void => {
    setText(hardware, model.get('hardware') ? `On this machine: ${model.get('hardware')}.` : 'Looking at this machine …');
    drawRows(model, list, choose);
    applyFilter(list, filter.value, none);
  };
  filter.addEventListener('input', () => applyFilter(list, filter.value, none));
  follow(model, ['models', 'hardware', 'about', 'values'], () => { draw(); free.draw(); }, cleanup);
  body.append(free.node, h('div', { class: 'tb-toolbar' }, filter, hardware), list, none, form(model, cleanup, { groups: false, fold: 'Settings of the model' }));
});

function freeField(model: AnyModel<ModelState>, choose: (name: string) => void): { node: HTMLElement; draw: () => void } {
  const id = freshId('name');
  const input = h('input', { type: 'text', id, class: 'tb-input', autocomplete: 'off', spellcheck: 'false' });
  const use = (): void => choose(input.value);
  input.addEventListener('keydown', event => event.key === 'Enter' && use());
  const node = h(
    'div',
    { class: 'tb-field', 'data-field': 'model.name' },
    h('label', { class: 'tb-label', for: id }, 'Name, Hugging Face id or folder'),
    h('div', { class: 'tb-control' }, input, button('Use', use))
  );
  const draw = (): void => {
    if (document.activeElement !== input) {
      input.value = String(model.get('values')['model.name'] ?? '');
    }
  };
  return { node, draw };
}

function drawRows(model: AnyModel<ModelState>, list: HTMLElement, choose: (name: string) => void): void {
  const chosen = model.get('about').catalogue ?? model.get('values')['model.name'];
  const group = list.dataset['group'] ?? (list.dataset['group'] = freshId('models'));
  const rows = model.get('models');
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(row => rowElement(row, group, choose)));
  }
  rows.forEach((row, at) => {
    const element = list.children[at] as HTMLElement;
    const input = element.querySelector('input') as HTMLInputElement;
    input.checked = row.name === chosen;
    const verdict = element.querySelector('.tb-verdict') as HTMLElement;
    verdict.className = `tb-verdict tb-${row.verdict || 'unknown'}`;
    setText(verdict, VERDICTS[row.verdict]);
    setText(element.querySelector('.tb-memory') as HTMLElement, row.memory);
  });
}

function rowElement(row: Row, group: string, choose: (name: string) => void): HTMLElement {
  const input = h('input', { type: 'radio', name: group, value: row.name });
  input.addEventListener('change', () => choose(row.name));
  const facts = `${row.size} parameters · ${row.context} context · ${row.licence}`;
  return h(
    'label',
    { class: 'tb-model', 'data-model': row.name },
    input,
    h('span', { class: 'tb-model-title' }, row.title),
    h('span', { class: 'tb-model-facts' }, facts),
    h('span', { class: 'tb-memory' }),
    h('span', { class: 'tb-verdict' })
  );
}

function applyFilter(list: HTMLElement, typed: string, none: HTMLElement): void {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of list.children as Iterable<Element> as Iterable<HTMLElement>) {
    const text = `${row.textContent ?? ''} ${row.dataset['model'] ?? ''}`.toLowerCase();
    const match = words.every(word => text.includes(word));
    toggle(row, match);
    shown += match ? 1 : 0;
  }
  toggle(none, shown === 0);
  setText(none, shown ? '' : 'No model of the catalogue matches; any Hugging Face id can be typed above.');
}
