/** The conversation of one row: the tools that it offers, then who says what and calls which. */

import { h } from '../dom.ts';
import { follow, type Cleanup } from '../model.ts';
import { shown, visible } from '../visible.ts';
import type { DataState, Model } from './state.ts';

export function messagesStage(model: Model, cleanup: Cleanup): HTMLElement {
  const box = h('div', { class: 'tb-conversation' });
  const draw = (): void => box.replaceChildren(...offered(model.get('tools')), ...model.get('conversation').map(message));
  follow(model, ['conversation', 'tools'], draw, cleanup);
  return box;
}

function offered({ words, offered: tools = [] }: DataState['tools']): HTMLElement[] {
  const items = tools.map(([name, description, schema]) =>
    h('li', { 'data-tool': name }, h('code', {}, ...shown(name)), description && h('p', { dir: 'auto' }, ...shown(description)), folded('Schema', schema))
  );
  return words ? [h('div', { class: 'tb-message-row tb-offered', tabindex: 0, role: 'region', 'aria-label': 'Offered tools' }, h('span', { class: 'tb-role' }, words), h('ul', {}, ...items))] : [];
}

function folded(title: string, text: string): HTMLElement {
  return h('details', {}, h('summary', {}, title), h('pre', { class: 'tb-raw-text' }, ...shown(text)));
}

export function message({ role, content, calls }: DataState['conversation'][number]): HTMLElement {
  const known = ['user', 'assistant', 'system'].includes(role) ? role : 'other';
  const called = calls.map(call => h('pre', { class: 'tb-raw-text' }, ...shown(call)));
  return h('div', { class: `tb-message-row tb-role-${known}` }, h('span', { class: 'tb-role' }, visible(role)), content && h('p', { dir: 'auto' }, ...shown(content)), ...called);
}
