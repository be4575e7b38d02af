/** Elements without markup: every text is set as text, never parsed. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined>;

/** An element with attributes and children; `class` is an attribute like any other. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that does one thing. */
export function button(
  label: string,
  onClick: () => void,
  attributes: Attributes = {}
): HTMLButtonElement {
  const element = h('button', { type: 'button', class: 'tb-button', ...attributes }, label);
  element.addEventListener('click', onClick);
  return element;
}

/** Set the text only where it differs, so that a screen reader is not told the same twice. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Show or hide. */
export function toggle(element: HTMLElement, shown: boolean): void {
  element.hidden = !shown;
}

let lastId = 0;

/** An id that is new in this page. */
export function freshId(prefix: string): string {
  lastId += 1;
  return `tb-${prefix}-${lastId}-${Math.random().toString(36).slice(2, 8)}`;
}

/** Call `action` once, `delay` milliseconds after the last of several calls. */
export function debounce<A extends unknown[]>(
  action: (...args: A) => void,
  delay: number
): ((...args: A) => void) & { flush: () => void; cancel: () => void } {
  let timer: number | undefined;
  let waiting: A | undefined;
  const run = (): void => {
    window.clearTimeout(timer);
    const args = waiting;
    waiting = undefined;
    if (args) {
      action(...args);
    }
  };
  const debounced = (...args: A): void => {
    waiting = args;
    window.clearTimeout(timer);
    timer = window.setTimeout(run, delay);
  };
  const cancel = (): void => {
    window.clearTimeout(timer);
    waiting = undefined;
  };
  return Object.assign(debounced, { flush: run, cancel });
}

/** Call `action` at once, then at most once in `pause` milliseconds; the last call is never lost. */
export function throttle<A extends unknown[]>(action: (...args: A) => void, pause: number): (...args: A) => void {
  let waiting: A | undefined;
  let paused = false;
  const next = (): void => {
    const args = waiting;
    waiting = undefined;
    paused = args !== undefined;
    if (args) {
      window.setTimeout(next, pause);
      action(...args);
    }
  };
  return (...args: A): void => {
    waiting = args;
    if (!paused) {
      next();
    }
  };
}

/** A sentence whose names between backticks are set as code; still text, never markup. */
export function codeWords(text: string): Node[] {
  return text.split('`').map((part, at) => (at % 2 ? h('code', {}, part) : document.createTextNode(part)));
}
