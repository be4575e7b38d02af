/** Where the rows come from: typed, chosen from what is near, or dropped. */

import { button, codeWords, debounce, freshId, h, toggle } from '../dom.ts';
import { follow, type Cleanup } from '../model.ts';
import { visible } from '../visible.ts';
import { matching } from './options.ts';
import type { Model, SourceGroup, SourceOption } from './state.ts';
import { dropZone } from './upload.ts';

export function source(model: Model, cleanup: Cleanup): HTMLElement {
  const format = h('p', { class: 'tb-muted tb-format', role: 'status' });
  follow(model, ['format'], () => format.replaceChildren(...codeWords(visible(model.get('format').words ?? ''))), cleanup);
  const box = h('div', { class: 'tb-field tb-source', 'data-field': 'data.source' }, new Chooser(model, cleanup).node);
  box.append(format, ...dropZone(model, cleanup, box));
  return box;
}

/** A text field with a list of what was found: variables, files, what is built in. */
class Chooser {
  readonly node: HTMLElement;
  #model: Model;
  #id = freshId('source');
  #input: HTMLInputElement;
  #list: HTMLElement;
  #options: SourceOption[] = [];
  #active = -1;
  #typed = false;

  constructor(model: Model, cleanup: Cleanup) {
    this.#model = model;
    this.#list = h('div', { role: 'listbox', id: `${this.#id}-list`, class: 'tb-options', 'aria-label': 'Data that was found', hidden: true });
    this.#input = h('input', {
      type: 'text',
      id: this.#id,
      class: 'tb-input',
      role: 'combobox',
      autocomplete: 'off',
      spellcheck: 'false',
      'aria-autocomplete': 'list',
      'aria-expanded': 'false',
      'aria-controls': this.#list.id
    });
    const open = button('▾', () => this.#toggle(), { class: 'tb-button tb-square tb-open', tabindex: -1, 'aria-label': 'Show the data that was found', 'data-do': 'open-sources' });
    const read = button('Read', () => this.#read(), { 'data-do': 'read' });
    const label = h('label', { class: 'tb-label', for: this.#id }, 'A file, a variable of this notebook, or a Hugging Face dataset');
    this.node = h('div', { class: 'tb-chooser' }, label, h('div', { class: 'tb-control' }, h('div', { class: 'tb-combo' }, this.#input, open), read), this.#list);
    this.#listen(cleanup);
  }

  #listen(cleanup: Cleanup): void {
    const look = debounce(() => this.#draw(), 60);
    this.#input.addEventListener('input', () => {
      this.#typed = true;
      this.#open();
      look();
    });
    this.#input.addEventListener('click', () => this.#open());
    this.#input.addEventListener('keydown', event => this.#key(event));
    this.node.addEventListener('focusout', event => {
      if (!this.node.contains(event.relatedTarget as Node | null)) {
        this.#close();
      }
    });
    // the field keeps the focus while an option is pressed
    this.#list.addEventListener('pointerdown', event => event.preventDefault());
    this.#list.addEventListener('click', event => {
      const at = (event.target as HTMLElement).closest<HTMLElement>('[data-at]')?.dataset['at'];
      if (at !== undefined) {
        this.#choose(this.#options[Number(at)]);
      }
    });
    follow(this.#model, ['values', 'rows_name'], () => this.#show(), cleanup);
    follow(this.#model, ['sources'], () => this.#draw(), cleanup);
  }

  get #current(): string {
    return this.#model.get('rows_name') || String(this.#model.get('values')['data.source'] ?? '');
  }

  #show(): void {
    if (!this.#typed) {
      this.#input.value = this.#current;
    }
  }

  #toggle(): void {
    this.#input.focus();
    if (this.#list.hidden) {
      this.#open();
    } else {
      this.#close();
    }
  }

  #open(): void {
    if (this.#list.hidden) {
      this.#model.send({ type: 'find_sources' });
      toggle(this.#list, true);
      this.#input.setAttribute('aria-expanded', 'true');
      this.#activate(-1);
      this.#draw();
    }
  }

  #close(): void {
    toggle(this.#list, false);
    this.#input.setAttribute('aria-expanded', 'false');
    this.#activate(-1);
  }

  #key(event: KeyboardEvent): void {
    const closed = this.#list.hidden;
    const last = this.#options.length - 1;
    const moves: Record<string, number> = { ArrowDown: Math.min(last, this.#active + 1), ArrowUp: Math.max(-1, this.#active - 1) };
    const to = moves[event.key];
    if (to !== undefined && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#open();
      this.#activate(closed ? 0 : to);
    } else if (event.key === 'Enter') {
      event.preventDefault();
      const option = this.#options[this.#active];
      if (option && !closed) {
        this.#choose(option);
      } else {
        this.#read();
      }
    } else if (event.key === 'Escape' && !closed) {
      event.preventDefault();
      event.stopPropagation();
      this.#close();
    }
  }

  #read(): void {
    const same = this.#input.value === this.#current;
    this.#typed = false;
    this.#close();
    this.#model.send(same ? { type: 'read' } : { type: 'source', source: this.#input.value });
  }

  #choose(option: SourceOption | undefined): void {
    if (option) {
      this.#typed = false;
      this.#input.value = option.value;
      this.#close();
      this.#model.send({ type: 'choose', kind: option.kind, value: option.value });
    }
  }

  #activate(at: number): void {
    this.#list.querySelector('[aria-selected="true"]')?.setAttribute('aria-selected', 'false');
    this.#active = at;
    const option = this.#list.querySelector<HTMLElement>(`[data-at="${at}"]`);
    if (option) {
      option.setAttribute('aria-selected', 'true');
      this.#input.setAttribute('aria-activedescendant', option.id);
      option.scrollIntoView({ block: 'nearest' });
    } else {
      this.#input.removeAttribute('aria-activedescendant');
    }
  }

  #draw(): void {
    const groups = matching(this.#model.get('sources'), this.#typed ? this.#input.value : '');
    const chosen = this.#options[this.#active]?.value;
    this.#options = groups.flatMap(group => group.options);
    let at = 0;
    this.#list.replaceChildren(...groups.map(group => this.#group(group, () => at++)));
    if (!this.#options.length) {
      this.#list.append(h('p', { class: 'tb-muted tb-option' }, 'Looking around …'));
    }
    this.#activate(this.#options.findIndex(option => option.value === chosen));
  }

  #group(group: SourceGroup, next: () => number): HTMLElement {
    const title = h('p', { class: 'tb-options-title', id: freshId('group') }, group.title);
    const options = group.options.map(option => {
      const at = next();
      return h(
        'div',
        { role: 'option', id: `${this.#id}-${at}`, class: 'tb-option', 'data-at': at, 'data-kind': option.kind, 'aria-selected': 'false' },
        h('span', { class: 'tb-option-name', dir: 'auto' }, visible(option.title)),
        h('span', { class: 'tb-muted', dir: 'auto' }, visible(option.about ?? ''))
      );
    });
    return h('div', { role: 'group', 'aria-labelledby': title.id }, title, ...options);
  }
}
