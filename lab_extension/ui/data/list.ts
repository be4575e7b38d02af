/** The list of rows: searched, filtered, and drawn only where it is seen, however long it is. */

import { button, debounce, freshId, h, setText, toggle } from '../dom.ts';
import { count } from '../format.ts';
import { follow, type Cleanup } from '../model.ts';
import { shown } from '../visible.ts';
import { Scale } from '../virtual.ts';
import type { Line, Model } from './state.ts';

const HEIGHT = 30; // of a line, in pixels, as in the style sheet
const AROUND = 30; // lines asked for on either side of what is seen
const KEPT = 4000; // lines remembered in the page
const PATIENCE = 1000; // milliseconds until an answer is no longer waited for

const FILTERS = [
  ['', 'All rows'],
  ['finding', 'With a finding'],
  ['cut', 'Cut off'],
  ['unusable', 'Cannot be used']
] as const;

export function rowList(model: Model, cleanup: Cleanup): HTMLElement {
  return h('div', { class: 'tb-rows' }, search(model, cleanup), new VirtualList(model, cleanup).node);
}

function search(model: Model, cleanup: Cleanup): HTMLElement {
  const input = h('input', { type: 'search', class: 'tb-input', placeholder: 'Search', 'aria-label': 'Search all rows', dir: 'auto', 'data-do': 'search' });
  const only = h('select', { class: 'tb-input tb-filter', 'aria-label': 'Which rows' });
  const state = h('span', { class: 'tb-muted', role: 'status' });
  const stop = button('Stop', () => model.send({ type: 'stop_search' }), { class: 'tb-button tb-small', 'data-do': 'stop-search' });
  const send = debounce(() => model.send({ type: 'search', text: input.value, only: only.value }), 250);
  input.addEventListener('input', () => send());
  input.addEventListener('keydown', event => {
    if (event.key === 'Enter') {
      send();
      send.flush();
    }
  });
  only.addEventListener('change', () => {
    send();
    send.flush();
  });
  const draw = (): void => {
    const listing = model.get('listing');
    if (document.activeElement !== input) {
      input.value = listing.text ?? '';
    }
    input.disabled = only.disabled = !listing.ready;
    const chosen = listing.only ?? '';
    const known = FILTERS.some(([name]) => name === chosen);
    const more = known ? [] : [[chosen, chosen.replaceAll('_', ' ')] as const];
    only.replaceChildren(...[...FILTERS, ...more].map(([name, title]) => h('option', { value: name }, title)));
    only.value = chosen;
    state.setAttribute('aria-busy', String(Boolean(listing.searching)));
    setText(state, stateText(listing, model.get('rows')));
    toggle(stop, Boolean(listing.searching));
  };
  follow(model, ['listing', 'rows'], draw, cleanup);
  return h('div', { class: 'tb-search' }, input, only, h('div', { class: 'tb-search-state' }, state, stop));
}

function stateText(listing: { text?: string; only?: string; total?: number; scanned?: number; searching?: boolean }, rows: number): string {
  const total = count(listing.total ?? 0);
  if (listing.searching) {
    return `${total} found, ${Math.floor((100 * (listing.scanned ?? 0)) / Math.max(1, rows))} % searched`;
  }
  return listing.text || listing.only ? `${total} of ${count(rows)} rows` : `${total} rows`;
}

class VirtualList {
  readonly node: HTMLElement;
  #model: Model;
  #layer = h('div', { class: 'tb-list-layer', role: 'presentation' });
  #spacer = h('div', { role: 'presentation' }, this.#layer);
  #empty = h('p', { class: 'tb-muted tb-list-empty' });
  #id = freshId('line');
  #lines = new Map<number, Line>();
  #version: number | undefined;
  #active = -1;
  #moved = 0;
  #asked = 0;
  #seen = false;
  #pick = debounce(() => this.#model.send({ type: 'pick', place: this.#active }), 80);

  constructor(model: Model, cleanup: Cleanup) {
    this.#model = model;
    this.node = h('div', { class: 'tb-list', role: 'listbox', tabindex: 0, 'aria-label': 'Rows' }, this.#empty, this.#spacer);
    this.node.addEventListener('scroll', () => this.#draw());
    this.node.addEventListener('keydown', event => this.#key(event));
    this.node.addEventListener('click', event => this.#click(event));
    const resized = new ResizeObserver(() => {
      if (!this.#seen && this.node.clientHeight > 0) {
        this.#seen = true;
        this.#reveal(); // nothing can be scrolled before the page has given it a height
      }
      this.#draw();
    });
    resized.observe(this.node);
    cleanup.add(() => resized.disconnect());
    follow(model, ['lines'], () => this.#take(), cleanup);
    follow(model, ['listing'], () => this.#draw(), cleanup);
    follow(model, ['place'], () => this.#placed(), cleanup);
  }

  get #scale(): Scale {
    return new Scale(this.#model.get('listing').total ?? 0, HEIGHT, this.node.clientHeight);
  }

  #take(): void {
    const { version, start = 0, lines = [] } = this.#model.get('lines');
    this.#renew();
    if (version === this.#version) {
      if (this.#lines.size > KEPT) {
        this.#lines.clear();
      }
      lines.forEach((line, at) => this.#lines.set(start + at, line));
    }
    this.#asked = 0;
    this.#draw();
  }

  /** Forget lines of an earlier list. */
  #renew(): void {
    const version = this.#model.get('listing').version;
    if (version !== this.#version) {
      this.#version = version;
      this.#lines.clear();
      this.#asked = 0;
    }
  }

  /** The row that is shown has changed: go there, unless the keys here are ahead of the answers. */
  #placed(): void {
    if (performance.now() - this.#moved > 500) {
      this.#active = this.#model.get('place');
      this.#reveal();
    }
    this.#draw();
  }

  #reveal(): void {
    if (this.#active >= 0) {
      this.node.scrollTop = this.#scale.reveal(this.#active, this.node.scrollTop);
    }
  }

  #draw(): void {
    this.#renew();
    const scale = this.#scale;
    const listing = this.#model.get('listing');
    this.#spacer.style.height = `${scale.height}px`;
    toggle(this.#empty, scale.total === 0);
    setText(this.#empty, listing.searching ? 'Searching …' : listing.text || listing.only ? 'No row is like that.' : '');
    const first = scale.first(this.node.scrollTop);
    const top = Math.floor(first);
    const places = Array.from({ length: Math.min(scale.seen, scale.total - top) }, (_, at) => top + at);
    this.#layer.style.transform = `translateY(${-(first - top) * HEIGHT}px)`;
    this.#layer.replaceChildren(...places.map(place => this.#line(place, scale.total)));
    if (places.includes(this.#active)) {
      this.node.setAttribute('aria-activedescendant', `${this.#id}-${this.#active}`);
    } else {
      this.node.removeAttribute('aria-activedescendant');
    }
    this.#ask(places);
  }

  /** Ask for lines that are seen and not known; one question at a time, so that none queue up. */
  #ask(places: number[]): void {
    const missing = places.filter(place => !this.#lines.has(place));
    const first = missing[0];
    if (first === undefined || performance.now() - this.#asked < PATIENCE) {
      return;
    }
    this.#asked = performance.now();
    this.#model.send({ type: 'window', start: Math.max(0, first - AROUND), count: places.length + 2 * AROUND });
  }

  #line(place: number, total: number): HTMLElement {
    const line = this.#lines.get(place);
    const chosen = place === this.#active;
    const attributes = { id: `${this.#id}-${place}`, role: 'option', 'data-place': place, 'aria-setsize': total, 'aria-posinset': place + 1, 'aria-selected': String(chosen) };
    if (!line) {
      return h('div', { ...attributes, class: 'tb-line', 'aria-busy': 'true' }, h('span', { class: 'tb-muted' }, '…'));
    }
    const [row, words, tokens, marks] = line;
    return h(
      'div',
      { ...attributes, class: 'tb-line' },
      h('span', { class: 'tb-line-number' }, count(row + 1)),
      h('span', { class: 'tb-line-words', dir: 'auto' }, ...shown(words || '(no text)')),
      ...this.#marks(marks),
      h('span', { class: 'tb-line-tokens', title: 'tokens' }, tokens === null ? '' : count(tokens))
    );
  }

  /** The worst mark by its colour and all of them in words. */
  #marks(marks: Line[3]): HTMLElement[] {
    const worst = (['error', 'warning', 'info'] as const).find(severity => marks.some(mark => mark[1] === severity));
    if (!worst) {
      return [];
    }
    const words = marks.map(mark => mark[0]).join(', ');
    return [h('span', { class: `tb-mark tb-mark-${worst}`, title: words, role: 'img', 'aria-label': `${worst}: ${words}` })];
  }

  #key(event: KeyboardEvent): void {
    const { total, view } = this.#scale;
    const page = Math.max(1, Math.floor(view / HEIGHT) - 1);
    const at = this.#active;
    const moves: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: total - 1 };
    const to = moves[event.key];
    if (to !== undefined && total > 0 && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#choose(Math.min(total - 1, Math.max(0, to)));
    }
  }

  #click(event: Event): void {
    const place = (event.target as HTMLElement).closest<HTMLElement>('[data-place]')?.dataset['place'];
    if (place !== undefined) {
      this.#choose(Number(place));
    }
  }

  #choose(place: number): void {
    this.#active = place;
    this.#moved = performance.now();
    this.#reveal();
    this.#draw();
    this.#pick();
  }
}
