/** Other runs over this one: which, and where their recipes differ. */

import { h, setText, toggle } from '../../ui/dom.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import type { Model } from './state.ts';

export function compare(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('div', { class: 'tb-chips', role: 'group', 'aria-label': 'Runs to lay over this one' });
  const empty = h('p', { class: 'tb-muted' }, 'There are no other runs in this folder yet.');
  const table = h('div', { class: 'tb-differences', tabindex: 0, role: 'region', 'aria-label': 'Where the recipes differ' });
  const same = h('p', { class: 'tb-muted' }, 'Their recipes are the same.');
  const chosen = h('span', { class: 'tb-muted' });
  const details = h('details', { class: 'tb-compare' }, h('summary', {}, 'Compare with other runs ', chosen), list, empty, table, same);
  details.addEventListener('toggle', () => {
    if (details.open) {
      model.send({ type: 'list_runs' });
    }
  });
  const draw = (): void => {
    const names = model.get('chosen');
    const known = [...new Set([...model.get('others').map(run => run.name), ...names])];
    drawChoices(model, list, known);
    const differences = model.get('differences');
    table.replaceChildren(...(differences.length ? [differenceTable(model)] : []));
    toggle(empty, known.length === 0);
    toggle(table, differences.length > 0);
    toggle(same, names.length > 0 && differences.length === 0);
    setText(chosen, names.length ? `(${names.length})` : '');
  };
  follow(model, ['others', 'chosen', 'differences', 'run_name'], draw, cleanup);
  return details;
}

/** One switch a run, made once, so that the focus stays while the choice is sent and answered. */
function drawChoices(model: Model, list: HTMLElement, known: string[]): void {
  const key = known.join('\n');
  if (list.dataset['known'] !== key) {
    list.dataset['known'] = key;
    list.replaceChildren(...known.map(name => choice(model, name)));
  }
  for (const input of list.querySelectorAll('input')) {
    input.checked = model.get('chosen').includes(input.value);
  }
}

function choice(model: Model, name: string): HTMLElement {
  const input = h('input', { type: 'checkbox', value: name });
  input.addEventListener('change', () => {
    const rest = model.get('chosen').filter(item => item !== name);
    model.send({ type: 'overlay', names: input.checked ? [...rest, name] : rest });
  });
  return h('label', { class: 'tb-chip' }, input, h('span', { dir: 'auto' }, name));
}

function differenceTable(model: Model): HTMLElement {
  const names = [model.get('run_name') || 'this recipe', ...model.get('overlays').map(run => run.name)];
  const head = h('tr', {}, h('th', { scope: 'col' }, 'Differs in'), ...names.map(name => h('th', { scope: 'col', dir: 'auto' }, name)));
  const rows = model.get('differences').map(item =>
    h('tr', {}, h('th', { scope: 'row', title: item.path }, item.title), ...item.values.map(value => h('td', { dir: 'auto' }, value)))
  );
  return h('table', {}, h('thead', {}, head), h('tbody', {}, ...rows));
}
