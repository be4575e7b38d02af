/** Which column is which: chosen by hand where it cannot be told, with the first row read that way. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { threeParts } from '../frame.ts';
import { follow, type Cleanup } from '../model.ts';
import { shown, visible } from '../visible.ts';
import { message } from './messages.ts';
import type { Mapping, Model } from './state.ts';

export function mappingView(model: Model, cleanup: Cleanup): HTMLElement {
  const summary = h('summary', {});
  const why = h('p', { class: 'tb-mapping-why', role: 'status' });
  const fields = h('div', { class: 'tb-mapping-fields' });
  const example = h('div', { class: 'tb-mapping-example', role: 'region', 'aria-label': 'The first row, read this way' });
  const use = button('Use these columns', () => model.send({ type: 'use_columns' }), { class: 'tb-button tb-primary', 'data-do': 'use-columns' });
  const detect = button('Find out again', () => model.send({ type: 'detect_columns' }), { 'data-do': 'detect-columns' });
  const box = h('details', { class: 'tb-mapping tb-fold-form' }, summary, why, h('div', { class: 'tb-mapping-sides' }, fields, example), h('div', { class: 'tb-buttons' }, use, detect));
  let asked: string | undefined;
  const draw = (): void => {
    const mapping = model.get('mapping');
    toggle(box, mapping.columns !== undefined);
    if (mapping.columns === undefined) {
      asked = undefined;
      return;
    }
    const unsure = mapping.how === 'guessed' || (mapping.confidence ?? 1) < 1;
    const question = unsure ? mapping.why : undefined;
    if (question !== asked) {
      box.open = unsure; // it opens by itself when there is something to say, and only once
      asked = question;
    }
    box.classList.toggle('tb-unsure', mapping.how === 'guessed');
    setText(summary, summaryText(mapping));
    setText(why, mapping.how === 'guessed' ? `Nobody could tell what these columns mean. Say which is which; here is a guess.` : visible(mapping.why ?? ''));
    const held = fields.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset['part'] : undefined;
    fields.replaceChildren(...controls(model, mapping));
    if (held !== undefined) {
      fields.querySelector<HTMLElement>(`[data-part="${held}"]`)?.focus();
    }
    example.replaceChildren(...exampleOf(mapping));
    use.disabled = Boolean(mapping.example?.error?.what);
    toggle(use, Boolean(mapping.tried));
    toggle(detect, mapping.how === 'mapped' || Boolean(mapping.tried && mapping.how === 'detected'));
  };
  follow(model, ['mapping'], draw, cleanup);
  return box;
}

function summaryText({ how, kind, kinds = [], chosen = {} }: Mapping): string {
  const title = kinds.find(item => item.name === kind)?.title ?? kind ?? '';
  const pairs = Object.entries(chosen).map(([part, column]) => (part === column ? part : `${part} = ${column}`));
  return how === 'guessed' ? 'Which column is which?' : visible(`Columns: ${title.toLowerCase()} from ${pairs.join(', ')}`);
}

function controls(model: Model, mapping: Mapping): HTMLElement[] {
  const { kind = '', kinds = [], chosen = {}, columns = [], parts = {} } = mapping;
  const send = (next: string, mapped: Record<string, string>): void => model.send({ type: 'try_columns', kind: next, chosen: mapped });
  const chooser = select('kind', kinds.map(item => [item.name, item.title]), kind, value => send(value, chosen));
  const known = kinds.find(item => item.name === kind);
  const named = columns.map(column => [column.name, `${visible(column.name)} (${column.kind})`] as const);
  const rows = [...(known?.needs ?? []), ...(known?.may ?? [])].map(part => {
    const needed = known?.needs.includes(part);
    const set = (value: string): void => {
      const { [part]: _, ...others } = chosen;
      send(kind, value ? { ...others, [part]: value } : others);
    };
    const control = select(part, [['', needed ? 'choose a column' : 'none'], ...named], chosen[part] ?? '', set);
    const held = columns.find(column => column.name === chosen[part]);
    return field(part, control, parts[part] ?? '', held?.example);
  });
  return [field('A row holds', chooser, '', undefined), ...rows];
}

function select(part: string, options: (readonly [string, string])[], value: string, set: (value: string) => void): HTMLSelectElement {
  const node = h('select', { class: 'tb-input', id: freshId('part'), 'data-part': part }, ...options.map(([name, title]) => h('option', { value: name }, title)));
  node.value = value;
  node.addEventListener('change', () => set(node.value));
  return node;
}

function field(title: string, control: HTMLSelectElement, about: string, example: string | undefined): HTMLElement {
  const label = h('label', { class: 'tb-label', for: control.id }, title, about && h('span', {}, `: ${about}`));
  return h('div', { class: 'tb-field' }, label, control, example !== undefined && h('p', { class: 'tb-muted tb-mapping-held', dir: 'auto' }, ...shown(example)));
}

function exampleOf(mapping: Mapping): HTMLElement[] {
  const { messages = [], error = {} } = mapping.example ?? {};
  const said = error.what ? [threeParts(error)] : messages.map(item => message({ ...item, calls: [] }));
  return [h('p', { class: 'tb-label' }, 'The first row, read this way'), ...said];
}
