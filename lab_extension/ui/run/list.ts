/** The list of runs: one row each, kept where it is while its numbers change. Knows no server. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { factWords, isLive, matches, progressWords, sparkline, stateWord, type RunRow, type Translator } from './rows.ts';

const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT] = [56, 20];

/** Rows by keyboard: one stop for the Tab key, arrows between them. */
export class RunList {
  readonly node: HTMLElement;
  #list = h('ul', { class: 'tb-run-list' });
  #none = h('p', { class: 'tb-muted tb-run-none', role: 'status' });
  #filter: HTMLInputElement;
  #rows = new Map<string, Row>();
  #runs: readonly RunRow[] = [];
  #trans: Translator;
  #open: (path: string) => void;

  constructor(open: (path: string) => void, trans: Translator) {
    this.#open = open;
    this.#trans = trans;
    const label = trans.__('Filter runs by name, folder or state');
    this.#filter = h('input', { type: 'search', class: 'tb-input', id: freshId('filter'), placeholder: trans.__('Filter runs'), 'aria-label': label });
    this.#filter.addEventListener('input', this.#draw);
    this.#list.setAttribute('aria-label', trans.__('Runs'));
    this.#list.addEventListener('keydown', this.#moved);
    this.node = h('div', { class: 'tb-run-place' }, this.#filter, this.#none, this.#list);
  }

  /** Show these runs. */
  set(runs: readonly RunRow[]): void {
    this.#runs = runs;
    this.#draw();
  }

  #draw = (): void => {
    const shown = this.#runs.filter(run => matches(run, this.#filter.value, this.#trans));
    const paths = new Set(shown.map(run => run.path));
    for (const [path, row] of this.#rows) {
      if (!paths.has(path)) {
        row.node.remove();
        this.#rows.delete(path);
      }
    }
    shown.forEach((run, at) => this.#place(run, at));
    this.#oneStop();
    toggle(this.#filter, this.#runs.length > 1);
    toggle(this.#none, this.#runs.length > 0 && shown.length === 0);
    setText(this.#none, this.#trans.__('No run matches.'));
  };

  #place(run: RunRow, at: number): void {
    const row = this.#rows.get(run.path) ?? new Row(run, () => this.#open(run.path), this.#trans);
    this.#rows.set(run.path, row);
    row.set(run);
    const there = this.#list.children[at];
    if (there !== row.node) {
      this.#list.insertBefore(row.node, there ?? null);
    }
  }

  #buttons(): HTMLButtonElement[] {
    return [...this.#list.querySelectorAll<HTMLButtonElement>('.tb-run')];
  }

  #oneStop(): void {
    const buttons = this.#buttons();
    const chosen = buttons.find(item => item === document.activeElement) ?? buttons.find(item => item.tabIndex === 0) ?? buttons[0];
    buttons.forEach(item => (item.tabIndex = item === chosen ? 0 : -1));
  }

  #moved = (event: KeyboardEvent): void => {
    const buttons = this.#buttons();
    const at = buttons.indexOf(event.target as HTMLButtonElement);
    const to: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    const next = buttons[to[event.key] ?? -1];
    if (at >= 0 && next) {
      event.preventDefault();
      next.focus();
      this.#oneStop();
    }
  };
}

class Row {
  readonly node: HTMLElement;
  #button: HTMLButtonElement;
  #dot = h('span', { class: 'tb-dot', 'aria-hidden': 'true' });
  #name = h('bdi');
  #progress = h('span', { class: 'tb-run-words' });
  #facts = h('span', { class: 'tb-run-words tb-muted' });
  #fill = h('span', { class: 'tb-fill' });
  #bar = h('span', { class: 'tb-run-bar', 'aria-hidden': 'true' }, this.#fill);
  #curve = document.createElementNS(SVG, 'path');
  #trans: Translator;

  constructor(run: RunRow, open: () => void, trans: Translator) {
    this.#trans = trans;
    const picture = document.createElementNS(SVG, 'svg');
    picture.setAttribute('class', 'tb-sparkline');
    picture.setAttribute('viewBox', `-1 -1 ${WIDTH + 2} ${HEIGHT + 2}`);
    picture.setAttribute('aria-hidden', 'true');
    picture.append(this.#curve);
    this.#button = button('', open, { class: 'tb-run' });
    this.#button.append(this.#dot, h('span', { class: 'tb-run-label' }, this.#name), picture, this.#progress, this.#facts, this.#bar);
    this.node = h('li', { class: 'tb-run-item', 'data-path': run.path }, this.#button);
  }

  set(run: RunRow): void {
    const live = isLive(run.state);
    this.node.dataset['state'] = run.state;
    this.node.dataset['step'] = String(run.step);
    setText(this.#name, run.name);
    setText(this.#progress, progressWords(run, this.#trans));
    const facts = factWords(run, Date.now() / 1000, this.#trans).split(' · ');
    const unbroken = facts.map(fact => fact.replaceAll(' ', '\u00a0')).join(' · ');
    setText(this.#facts, run.state === 'failed' && run.failure.what ? run.failure.what : unbroken);
    this.#button.title = `${run.path}\n${stateWord(run.state, this.#trans)}`;
    this.#curve.setAttribute('d', sparkline(run.curve, WIDTH, HEIGHT));
    this.#fill.style.width = `${run.total ? Math.min(100, (100 * run.step) / run.total) : 0}%`;
    toggle(this.#bar, live && run.total > 0);
  }
}
