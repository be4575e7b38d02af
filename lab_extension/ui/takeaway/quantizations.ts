/** The types of GGUF files: what each takes, how close it stays, what it is good for. */

import { freshId, h, toggle } from '../dom.ts';
import { follow, type Cleanup } from '../model.ts';
import { chosen, inOrder, type Quantization, type TakeAwayModel } from './state.ts';

const PATH = 'export.gguf_quantization';

/** The table, there while GGUF is ticked; the first one ticked is the one that Ollama gets. */
export function quantizations(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const inputs = new Map<string, HTMLInputElement>();
  const id = freshId('types');
  const usual = h('div', {});
  const others = h('div', {});
  const more = h('details', {}, h('summary', {}, 'More types'), others);
  const send = (): void => {
    const ticked = [...inputs].filter(([, input]) => input.checked).map(([name]) => name);
    model.send({ type: 'set', path: PATH, value: inOrder(chosen(model, PATH), ticked) });
  };
  const build = (): void => {
    inputs.clear();
    const rows = model.get('quantizations').map((type): [Quantization, HTMLElement] => [type, row(type, inputs, send)]);
    usual.replaceChildren(...rows.filter(([type]) => type.usual).map(([, element]) => element));
    others.replaceChildren(...rows.filter(([type]) => !type.usual).map(([, element]) => element));
    const now = chosen(model, PATH);
    more.open ||= rows.some(([type]) => !type.usual && now.includes(type.name));
    draw();
  };
  const box = h(
    'div',
    { class: 'tb-types', role: 'group', 'aria-labelledby': id },
    h('p', { class: 'tb-label', id }, 'GGUF types: one file is written for each, and bits are those of a weight on average'),
    h('div', { class: 'tb-type tb-type-head', 'aria-hidden': 'true' }, h('span'), h('span', {}, 'Type'), h('span', { class: 'tb-type-words' }, 'Good for'), h('span', { class: 'tb-type-closeness' }, 'Closeness'), h('span', { class: 'tb-type-bits' }, 'Bits'), h('span', { class: 'tb-type-bar' }, 'Beside 16 bit'), h('span', { class: 'tb-type-size' }, 'Size')),
    usual,
    more
  );
  const draw = (): void => {
    const now = chosen(model, PATH);
    inputs.forEach((input, name) => (input.checked = now.includes(name)));
    toggle(box, chosen(model, 'export.formats').includes('gguf'));
  };
  follow(model, ['quantizations'], build, cleanup);
  follow(model, ['values'], draw, cleanup);
  return box;
}

function row(type: Quantization, inputs: Map<string, HTMLInputElement>, send: () => void): HTMLElement {
  const about = freshId('about');
  const input = h('input', { type: 'checkbox', class: 'tb-check', id: freshId('type'), 'data-type': type.name, 'aria-describedby': about });
  input.addEventListener('change', send);
  inputs.set(type.name, input);
  const fill = h('span');
  fill.style.width = `${Math.min(100, 100 * type.share)}%`;
  return h(
    'div',
    { class: 'tb-type' },
    input,
    h('label', { class: 'tb-type-title', for: input.id }, type.title),
    h('span', { class: 'tb-type-words', id: about }, type.sentence),
    h('span', { class: 'tb-type-closeness' }, type.closeness),
    h('span', { class: 'tb-type-bits' }, type.bits),
    h('span', { class: 'tb-type-bar', 'aria-hidden': 'true' }, fill),
    h('span', { class: 'tb-type-size' }, type.size)
  );
}
