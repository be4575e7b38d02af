/** What was written: where, whether it is the model, what others do otherwise, and how it is used. */

import { freshId, h, toggle } from '../dom.ts';
import { codeBlock } from '../frame.ts';
import { Cleanup, follow } from '../model.ts';
import { mixView } from './mix.ts';
import type { Mix, Part, TakeAwayModel, Written } from './state.ts';

/** One entry for each form that was saved last. */
export function files(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const list = h('ul', { class: 'tb-files', 'aria-label': 'What was written' });
  let drawn: Cleanup | undefined;
  const draw = (): void => {
    drawn?.run();
    const own = (drawn = new Cleanup());
    list.replaceChildren(...model.get('files').map(file => written(file, own)));
    toggle(list, model.get('files').length > 0);
  };
  cleanup.add(() => drawn?.run());
  follow(model, ['files'], draw, cleanup);
  return list;
}

function written(file: Written, cleanup: Cleanup): HTMLElement {
  const mixes = file.parts.map(part => part.mix).filter((mix): mix is Mix => 'tensors' in mix);
  return h(
    'li',
    { class: 'tb-file', 'data-form': file.form },
    h('div', { class: 'tb-file-head' }, h('strong', {}, file.title), h('span', { class: 'tb-muted' }, file.size)),
    h('p', { class: 'tb-path' }, file.path),
    verdict(file),
    ...mixes.map(mix => mixView(mix, cleanup)),
    notes(file),
    usage(file)
  );
}

function verdict({ verified }: Written): HTMLElement | null {
  const { ok, summary, compared } = verified;
  if (!summary) {
    return null;
  }
  return h(
    'div',
    {},
    h('p', { class: `tb-verified ${ok ? 'tb-is-good' : 'tb-is-bad'}` }, h('span', { 'aria-hidden': 'true' }, ok ? '✓ ' : '✗ '), summary),
    compared && h('p', { class: 'tb-compared tb-muted' }, `Compared: ${compared}.`)
  );
}

function notes(file: Written): HTMLElement | null {
  if (!file.notes.length) {
    return null;
  }
  return h(
    'div',
    { class: 'tb-take-notes' },
    h('p', { class: 'tb-take-notes-title' }, 'Other programs do this otherwise'),
    h('ul', {}, ...file.notes.map(note => h('li', {}, note)))
  );
}

/** The lines for the file and the program that are picked. */
function usage(file: Written): HTMLElement {
  const place = h('div');
  let part: Part | undefined = file.parts[0];
  let program = part?.usage[0]?.[0] ?? '';
  const draw = (): void => {
    const [title, code] = part?.usage.find(([name]) => name === program) ?? part?.usage[0] ?? ['', ''];
    place.replaceChildren(...(code ? [codeBlock(title, code).box] : []));
  };
  const choosePart = (at: number): void => {
    part = file.parts[at];
    draw();
  };
  const choosePrograms = (at: number): void => {
    program = part?.usage[at]?.[0] ?? '';
    draw();
  };
  draw();
  return h(
    'div',
    { class: 'tb-usage' },
    file.parts.length > 1 && pick('File', file.parts.map(one => `${one.title}, ${one.size}`), choosePart),
    part && part.usage.length > 1 && pick('Use it with', part.usage.map(([name]) => name), choosePrograms),
    place
  );
}

/** One of several words, as radio buttons; the first one to begin with. */
function pick(label: string, words: string[], choose: (at: number) => void): HTMLElement {
  const [id, name] = [freshId('pick'), freshId('picked')];
  const chips = words.map((word, at) => {
    const input = h('input', { type: 'radio', name, checked: at === 0 });
    input.addEventListener('change', () => choose(at));
    return h('label', { class: 'tb-chip' }, input, h('span', {}, word));
  });
  return h('div', { class: 'tb-pick' }, h('span', { class: 'tb-label', id }, label), h('div', { class: 'tb-chips', role: 'radiogroup', 'aria-labelledby': id }, ...chips));
}
