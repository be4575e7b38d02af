/** What the model answers while it learns: each prompt with its newest answer, what changed, and the earlier ones. */

import { debounce, freshId, h, setText, toggle } from '../../ui/dom.ts';
import { form } from '../../ui/form.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import { changes } from '../../ui/worddiff.ts';
import type { Asked } from '../../ui/told.ts';
import type { Model } from './state.ts';

const PROMPTS = 'samples.sample_prompts';

export function samples(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('div', { class: 'tb-samples' });
  const empty = h('p', { class: 'tb-muted' });
  const open = new Set<string>(); // prompts whose earlier answers are unfolded
  let drawn = '';
  const draw = (): void => {
    const asked = model.get('samples');
    const now = JSON.stringify(asked);
    if (now !== drawn) {
      drawn = now;
      list.replaceChildren(...asked.map(item => card(item, open)));
    }
    toggle(list, asked.length > 0);
    toggle(empty, asked.length === 0);
    const every = model.get('values')['samples.sample_steps'];
    setText(
      empty,
      every
        ? `The model answers before the first step, every ${String(every)} steps and at the end.`
        : 'Press Ask now while it trains, or set how often it answers by itself.'
    );
  };
  follow(model, ['samples', 'values'], draw, cleanup);
  const knobs = form(model, cleanup, { groups: false });
  promptsField(model, knobs, cleanup);
  const settings = h('details', { class: 'tb-sample-settings' }, h('summary', {}, 'What is asked, and how often'), knobs);
  const heading = freshId('samples');
  return h(
    'section',
    { class: 'tb-section', 'aria-labelledby': heading },
    h('h4', { class: 'tb-section-title', id: heading }, 'What it answers'),
    list,
    empty,
    settings
  );
}

function card(item: Asked, open: Set<string>): HTMLElement {
  const [newest, ...earlier] = item.answers;
  const node = h('article', { class: 'tb-sample' }, h('p', { class: 'tb-sample-prompt', dir: 'auto' }, item.prompt));
  if (newest) {
    const before = earlier[0]?.text;
    node.append(answer(newest.step, newest.text, before, item.expected));
  }
  if (item.expected) {
    node.append(row('Expected', h('span', { dir: 'auto' }, item.expected), 'tb-sample-expected'));
  }
  if (earlier.length) {
    const words = earlier.length === 1 ? 'One earlier answer' : `${earlier.length} earlier answers`;
    const details = h('details', { class: 'tb-earlier', open: open.has(item.prompt) }, h('summary', {}, words));
    details.append(...earlier.map((one, at) => answer(one.step, one.text, earlier[at + 1]?.text, item.expected)));
    details.addEventListener('toggle', () => (details.open ? open.add(item.prompt) : open.delete(item.prompt)));
    node.append(details);
  }
  return node;
}

/** An answer; words that the answer before had not at that place are marked. */
function answer(step: number, text: string, before: string | undefined, expected: string | null): HTMLElement {
  const pieces = before === undefined ? [{ text, changed: false }] : changes(before, text);
  const words = h('span', { class: 'tb-sample-text', dir: 'auto' });
  words.append(...pieces.map(piece => (piece.changed ? h('mark', { class: 'tb-new' }, piece.text) : piece.text)));
  if (!text.trim()) {
    words.replaceChildren(h('em', {}, 'nothing'));
  }
  const right = expected !== null && text.trim() === expected.trim();
  const same = before !== undefined && before === text;
  const note = right ? h('span', { class: 'tb-verdict tb-fits' }, 'as expected') : same ? h('span', { class: 'tb-muted tb-same' }, 'unchanged') : null;
  return row(`Step ${step.toLocaleString('en')}`, h('span', {}, words, note ? ' ' : null, note));
}

function row(label: string, content: HTMLElement, kind = ''): HTMLElement {
  return h('div', { class: `tb-sample-row ${kind}` }, h('span', { class: 'tb-sample-label' }, label), content);
}

/** The list of prompts as lines to type, in the form's own place; nothing typed is lost before it is sent. */
function promptsField(model: Model, knobs: HTMLElement, cleanup: Cleanup): void {
  const field = knobs.querySelector(`[data-field="${PROMPTS}"]`);
  const chips = field?.querySelector('.tb-chips');
  if (!chips) {
    return;
  }
  const area = h('textarea', {
    rows: 3,
    class: 'tb-input',
    dir: 'auto',
    'aria-labelledby': chips.getAttribute('aria-labelledby'),
    placeholder: 'One question a line'
  });
  const send = debounce((text: string) => {
    const value = text.split('\n').filter(line => line.trim());
    model.send({ type: 'set', path: PROMPTS, value });
  }, 500);
  area.addEventListener('input', () => send(area.value));
  area.addEventListener('change', () => send.flush());
  const draw = (): void => {
    const value = model.get('values')[PROMPTS];
    if (document.activeElement !== area && Array.isArray(value)) {
      area.value = value.join('\n');
    }
  };
  follow(model, ['values'], draw, cleanup);
  chips.replaceWith(area);
}
