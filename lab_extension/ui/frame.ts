/** The frame of every panel: head, busy line, error, body, and the code that does the same. */

import { button, codeWords, freshId, h, setText, toggle } from './dom.ts';
import { visible } from './visible.ts';
import { Cleanup, follow, type AnyModel, type PanelState, type RenderProps, type ThreePartError } from './model.ts';

export interface PanelParts<T extends PanelState> {
  model: AnyModel<T>;
  body: HTMLElement;
  cleanup: Cleanup;
}

/** Make an anywidget module out of a function that fills the panel's body. */
export function definePanel<T extends PanelState>(
  name: string,
  fill: (parts: PanelParts<T>) => void,
  options: { code?: boolean } = {}
): { render: (props: RenderProps<T>) => () => void } {
  return {
    render({ model, el }) {
      const cleanup = new Cleanup();
      const base = model as unknown as AnyModel<PanelState>;
      const body = h('div', { class: 'tb-body' });
      const content = h('div', { class: 'tb-content', id: freshId('content') });
      content.append(busyLine(base, cleanup), errorBox(base, cleanup), body);
      if (options.code !== false) {
        content.append(codeBox(base, cleanup));
      }
      const heading = freshId('heading');
      const number = base.get('number');
      const panel = h('section', {
        class: 'tunebook-panel',
        'data-panel': name,
        'data-number': number,
        'aria-labelledby': heading,
        'data-lm-suppress-shortcuts': 'true' // Enter on a button must press it, not edit the cell
      });
      panel.append(head(base, heading, content, cleanup), content);
      el.append(panel);
      fill({ model, body, cleanup });
      cleanup.add(() => panel.remove());
      return cleanup.run;
    }
  };
}

function head(model: AnyModel<PanelState>, id: string, content: HTMLElement, cleanup: Cleanup): HTMLElement {
  const number = model.get('number');
  const title = h('span', { class: 'tb-title', id }, model.get('heading'));
  const lead = h('p', { class: 'tb-lead' }, model.get('lead'));
  const summary = h('span', { class: 'tb-summary' });
  follow(model, ['summary'], () => setText(summary, model.get('summary')), cleanup);
  if (!number) {
    return h('div', { class: 'tb-head tb-head-alone' }, h('h3', {}, title), summary, lead);
  }
  const fold = h(
    'button',
    { type: 'button', class: 'tb-fold', 'aria-controls': content.id },
    h('span', { class: 'tb-number', 'aria-hidden': 'true' }, String(number)),
    title,
    summary,
    h('span', { class: 'tb-chevron', 'aria-hidden': 'true' })
  );
  fold.addEventListener('click', () => {
    model.set('unfolded', !model.get('unfolded'));
    model.save_changes();
  });
  const draw = (): void => {
    const open = model.get('unfolded');
    fold.setAttribute('aria-expanded', String(open));
    toggle(content, open);
    toggle(lead, open);
  };
  follow(model, ['unfolded'], draw, cleanup);
  return h('div', { class: 'tb-head' }, h('h3', {}, fold), lead);
}

function busyLine(model: AnyModel<PanelState>, cleanup: Cleanup): HTMLElement {
  const text = h('span');
  const line = h('div', { class: 'tb-busy', role: 'status' }, h('span', { class: 'tb-spinner', 'aria-hidden': 'true' }), text);
  const draw = (): void => {
    setText(text, model.get('busy'));
    line.classList.toggle('tb-on', Boolean(model.get('busy')));
  };
  follow(model, ['busy'], draw, cleanup);
  return line;
}

/** The error of the panel, with a button that puts it away. */
function errorBox(model: AnyModel<PanelState>, cleanup: Cleanup): HTMLElement {
  const place = h('div', { class: 'tb-errors', role: 'alert' });
  const draw = (): void => {
    const error = model.get('error');
    place.replaceChildren();
    if (error.what) {
      place.append(threeParts(error, () => model.send({ type: 'dismiss' })));
    }
  };
  follow(model, ['error'], draw, cleanup);
  return place;
}

/** What happened, why, what to do. */
export function threeParts(error: ThreePartError, dismiss?: () => void): HTMLElement {
  const box = h(
    'div',
    { class: 'tb-error', 'data-error': error.name ?? '' },
    h('p', { class: 'tb-error-what' }, visible(error.what ?? '')),
    h('p', {}, h('span', { class: 'tb-error-label' }, 'Why'), ...codeWords(visible(error.why ?? ''))),
    h('p', {}, h('span', { class: 'tb-error-label' }, 'Do'), ...codeWords(visible(error.do ?? '')))
  );
  if (error.traceback) {
    box.append(h('details', {}, h('summary', {}, 'Traceback'), h('pre', { tabindex: 0 }, visible(error.traceback))));
  }
  if (dismiss) {
    box.append(button('×', dismiss, { class: 'tb-dismiss', 'aria-label': 'Put this message away' }));
  }
  return box;
}

function codeBox(model: AnyModel<PanelState>, cleanup: Cleanup): HTMLElement {
  const python = codeBlock('Python');
  const shell = codeBlock('Shell');
  const waiting = h('p', { class: 'tb-muted tb-late' }, 'The kernel writes these lines as soon as it is free.');
  const details = h('details', { class: 'tb-code' }, h('summary', {}, 'Show the code'), waiting, python.box, shell.box);
  offerInsertion(details, python.box, () => model.get('code').python ?? '');
  details.addEventListener('toggle', () => {
    if (details.open !== model.get('code_open')) {
      model.set('code_open', details.open);
      model.save_changes();
    }
  });
  const draw = (): void => {
    const { python: lines, shell: words } = model.get('code');
    python.set(lines ?? '');
    shell.set(words ?? '');
    [python.box, shell.box].forEach(box => toggle(box, lines !== undefined));
    toggle(waiting, lines === undefined);
  };
  follow(model, ['code'], draw, cleanup);
  follow(model, ['code_open'], () => (details.open = model.get('code_open')), cleanup);
  return details;
}

/** A piece of code with a button that copies it. */
export function codeBlock(title: string, text = ''): { box: HTMLElement; set: (text: string) => void } {
  const pre = h('pre', { tabindex: 0 }, text);
  const copy = button('Copy', () => void copyText(pre, copy), {
    class: 'tb-button tb-small tb-quiet',
    'aria-label': `Copy the ${title} lines`
  });
  const box = h('div', { class: 'tb-codeblock' }, h('div', { class: 'tb-codehead' }, h('span', {}, title), copy), pre);
  return { box, set: value => setText(pre, value) };
}

/** A button that makes the code a cell, once it is known that somebody in this page can do so. */
function offerInsertion(details: HTMLDetailsElement, box: HTMLElement, code: () => string): void {
  let asked = false;
  details.addEventListener('toggle', () => {
    if (asked || !details.open) {
      return;
    }
    asked = true;
    if (!ask(details, 'tunebook:can-insert')) {
      return;
    }
    const insert = button('Insert as cell', () => {
      if (ask(details, 'tunebook:insert-code', { code: code() })) {
        insert.textContent = 'Inserted';
        window.setTimeout(() => (insert.textContent = 'Insert as cell'), 1500);
      }
    }, { class: 'tb-button tb-small tb-quiet', 'data-do': 'insert' });
    box.querySelector('.tb-codehead button')?.before(insert);
  });
}

/** Whether a listener of the page (the JupyterLab plugin) takes an event as its own. */
function ask(from: HTMLElement, name: string, detail: Record<string, string> = {}): boolean {
  return !from.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }));
}

async function copyText(source: HTMLElement, copy: HTMLButtonElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(source.textContent ?? '');
    copy.textContent = 'Copied';
  } catch {
    // no clipboard in this page (not secure, or refused): select the text instead
    window.getSelection()?.selectAllChildren(source);
    copy.textContent = 'Selected';
  }
  window.setTimeout(() => (copy.textContent = 'Copy'), 1500);
}
