/** Tabs by the ARIA pattern: one stop for the Tab key, arrows between them. */

import { freshId, h } from './dom.ts';

export interface Tab<N extends string> {
  name: N;
  title: string;
}

export interface Tabs<N extends string> {
  bar: HTMLElement;
  panel: HTMLElement;
  show: (name: N) => void;
  /** Say of a tab that something is wrong in it. */
  warn: (names: readonly N[]) => void;
}

/** A row of tabs and the one panel that shows whichever is chosen. */
export function tabs<N extends string>(label: string, items: readonly Tab<N>[], choose: (name: N) => void): Tabs<N> {
  const panel = h('div', { role: 'tabpanel', id: freshId('tabpanel'), class: 'tb-tabpanel', tabindex: 0 });
  const buttons = items.map(item => {
    const tab = h('button', { type: 'button', role: 'tab', id: freshId('tab'), class: 'tb-tab', 'data-tab': item.name, 'aria-controls': panel.id }, item.title);
    tab.addEventListener('click', () => choose(item.name));
    return tab;
  });
  const bar = h('div', { role: 'tablist', class: 'tb-tabs', 'aria-label': label }, ...buttons);
  bar.addEventListener('keydown', event => {
    const at = buttons.indexOf(event.target as HTMLButtonElement);
    const last = buttons.length - 1;
    const moves: Record<string, number> = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last };
    const to = moves[event.key];
    const item = to === undefined ? undefined : items[to];
    if (at >= 0 && to !== undefined && item) {
      event.preventDefault();
      choose(item.name);
      buttons[to]?.focus();
    }
  });
  const show = (name: N): void => {
    buttons.forEach((tab, at) => {
      const chosen = items[at]?.name === name;
      tab.setAttribute('aria-selected', String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) {
        panel.setAttribute('aria-labelledby', tab.id);
      }
    });
  };
  const warn = (names: readonly N[]): void => {
    buttons.forEach((tab, at) => tab.classList.toggle('tb-wrong', names.includes(items[at]?.name as N)));
  };
  return { bar, panel, show, warn };
}
