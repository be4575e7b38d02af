/** What happened, in plain language; what deserves a look stands above everything else. */

import { codeWords, h, setText, toggle } from '../../ui/dom.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import type { Said } from '../../ui/told.ts';
import type { Model } from './state.ts';

const MOST_NOTICES = 3;

/** The newest warnings with what to do about them, close to the curves that show why. */
export function notices(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('ul', { class: 'tb-notices', 'aria-label': 'Worth a look', role: 'list' });
  const live = h('div', { role: 'status' }, list);
  let drawn = '';
  const draw = (): void => {
    const worth = model.get('messages').filter(said => said.kind === 'warning' || said.kind === 'advice');
    const shown = worth.slice(-MOST_NOTICES).reverse();
    const now = JSON.stringify(shown);
    if (now !== drawn) {
      drawn = now;
      list.replaceChildren(...shown.map(notice));
    }
    toggle(live, shown.length > 0);
  };
  follow(model, ['messages'], draw, cleanup);
  return live;
}

function notice(said: Said): HTMLElement {
  return h(
    'li',
    { class: `tb-notice tb-notice-${said.kind}` },
    h('p', { class: 'tb-notice-what', dir: 'auto' }, ...codeWords(said.text)),
    said.do ? h('p', { dir: 'auto' }, h('span', { class: 'tb-notice-label' }, 'Do'), ...codeWords(sentence(said.do))) : null,
    h('span', { class: 'tb-muted tb-notice-step' }, `step ${said.step.toLocaleString('en')}`)
  );
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function events(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('ol', { class: 'tb-events', tabindex: 0, 'aria-label': 'What happened' });
  const path = h('p', { class: 'tb-muted tb-path', dir: 'auto' });
  const node = h('div', { class: 'tb-events-place' }, list, path);
  let drawn: Said[] = [];
  const draw = (): void => {
    const messages = model.get('messages');
    const grown = drawn.length <= messages.length && drawn.every((said, at) => same(said, messages[at] as Said));
    if (grown) {
      list.prepend(...messages.slice(drawn.length).map(row).reverse());
    } else {
      list.replaceChildren(...messages.map(row).reverse());
    }
    drawn = messages;
    setText(path, model.get('run_path') ? `Everything about this run is in ${model.get('run_path')}` : '');
    toggle(node, messages.length > 0);
  };
  follow(model, ['messages', 'run_path'], draw, cleanup);
  return node;
}

function same(one: Said, other: Said): boolean {
  return one.step === other.step && one.kind === other.kind && one.text === other.text;
}

function row(said: Said): HTMLElement {
  return h(
    'li',
    { class: `tb-event tb-event-${said.kind}` },
    h('span', { class: 'tb-event-step' }, `step ${said.step.toLocaleString('en')}`),
    h('span', { dir: 'auto' }, ...codeWords(said.text), said.do ? h('span', { class: 'tb-muted' }, ' ', ...codeWords(said.do)) : null)
  );
}
