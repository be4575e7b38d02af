/** The tokens of a row, alone or under two chat templates side by side. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { count } from '../format.ts';
import { threeParts } from '../frame.ts';
import { follow, type Cleanup } from '../model.ts';
import type { Model, Side } from './state.ts';
import { legend, tokenView } from './tokens.ts';

const NOTHING = '-';

export function tokenStage(model: Model, cleanup: Cleanup): HTMLElement {
  const keys = h('div');
  const said = h('p', { class: 'tb-compared', role: 'status' });
  const wrong = h('div');
  const sides = (['mine', 'other'] as const).map(name => {
    const title = h('h4');
    const view = tokenView('Tokens of this row', name === 'mine');
    const refused = h('div');
    return { name, title, view, refused, node: h('div', { class: 'tb-column', 'data-side': name }, title, refused, view.node) };
  });
  const columns = h('div', { class: 'tb-token-columns' }, ...sides.map(side => side.node));
  const draw = (): void => {
    const compared = model.get('comparison');
    const both = Boolean(compared.mine && compared.other);
    const roles = model.get('conversation').map(message => message.role);
    const counts = model.get('counts');
    keys.replaceChildren(legend(both ? {} : counts, model.get('values_name'), both));
    columns.classList.toggle('tb-columns', both);
    wrong.replaceChildren(...(compared.error?.what ? [threeParts(compared.error)] : []));
    setText(said, compared.words ?? '');
    toggle(said, both);
    for (const { name, title, view, refused, node } of sides) {
      const side = both ? compared[name] : undefined;
      toggle(node, both || name === 'mine');
      toggle(title, both);
      setText(title, side ? `${titleOf(model, side.template)} · ${sizes(side)}` : '');
      refused.replaceChildren(...(side?.error.what ? [threeParts(side.error)] : []));
      toggle(view.node, !side?.error.what);
      view.draw(side ? side.tokens : name === 'mine' ? model.get('tokens') : [], roles, side ? side.counts : counts, model.get('values_name'));
      view.showIds(model.get('show_ids'));
    }
  };
  follow(model, ['tokens', 'conversation', 'counts', 'values_name', 'comparison', 'templates'], draw, cleanup);
  follow(model, ['show_ids'], () => sides.forEach(side => side.view.showIds(model.get('show_ids'))), cleanup);
  return h('div', { class: 'tb-token-stage' }, h('div', { class: 'tb-token-bar' }, chooser(model, cleanup), ids(model, cleanup)), keys, wrong, said, columns);
}

function chooser(model: Model, cleanup: Cleanup): HTMLElement {
  const id = freshId('template');
  const select = h('select', { id, class: 'tb-input tb-filter', 'data-do': 'compare' });
  const use = button('Use it', () => model.send({ type: 'use_template', template: model.get('comparison').template ?? '' }), { 'data-do': 'use-template' });
  select.addEventListener('change', () => model.send({ type: 'compare', template: select.value === NOTHING ? null : select.value }));
  const draw = (): void => {
    const named = model.get('templates');
    select.replaceChildren(h('option', { value: NOTHING }, 'no other template'), ...named.map(([name, title]) => h('option', { value: name }, title)));
    const chosen = model.get('comparison').template;
    select.value = chosen ?? NOTHING;
    toggle(use, chosen !== undefined && chosen !== (model.get('values')['model.chat_template'] ?? ''));
  };
  follow(model, ['templates', 'comparison', 'values'], draw, cleanup);
  return h('div', { class: 'tb-inline' }, h('label', { class: 'tb-label', for: id }, 'Compare with'), select, use);
}

function ids(model: Model, cleanup: Cleanup): HTMLElement {
  const box = h('input', { type: 'checkbox', class: 'tb-check', id: freshId('ids') });
  box.addEventListener('change', () => {
    model.set('show_ids', box.checked);
    model.save_changes();
  });
  follow(model, ['show_ids'], () => (box.checked = model.get('show_ids')), cleanup);
  return h('div', { class: 'tb-inline' }, box, h('label', { class: 'tb-label', for: box.id }, 'Show ids'));
}

function titleOf(model: Model, template: string): string {
  const found = model.get('templates').find(([name]) => name === template);
  return found ? found[1] : template.includes('{') ? 'A template of your own' : template;
}

function sizes(side: Side): string {
  return side.error.what ? 'refused' : `${count(side.counts.tokens ?? 0)} tokens, ${count(side.counts.trained ?? 0)} learned`;
}
