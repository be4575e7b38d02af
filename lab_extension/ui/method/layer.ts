/** One layer of this model: its modules are buttons that give them an adapter or take it away. */

import { button, h, setText, toggle } from '../dom.ts';
import { compact, count, percent } from '../format.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../model.ts';
import { onWidth, s, through } from '../svg.ts';
import { layout, type Layer, type LayerPart, type Layout } from './layout.ts';

export interface LayerState extends PanelState {
  layer: Layer;
}

const SHORTCUTS = [
  ['all', 'All linear layers'],
  ['attention', 'Attention only'],
  ['mlp', 'MLP only']
] as const;

export function layerView(model: AnyModel<LayerState>, cleanup: Cleanup): HTMLElement {
  const shortcuts = SHORTCUTS.map(([which, title]) =>
    button(title, () => model.send({ type: 'targets', which }), { class: 'tb-button tb-small', 'data-targets': which, 'aria-pressed': 'false' })
  );
  const place = h('div', { class: 'tb-layer', role: 'group', 'aria-label': 'One layer of this model: press a module to give it an adapter or take it away' });
  const told = h('p', { class: 'tb-trainable', role: 'status' });
  const more = h('p', { class: 'tb-muted' });
  const node = h('div', { class: 'tb-layer-view' }, h('div', { class: 'tb-buttons' }, ...shortcuts), place, told, more);
  const buttons = new Map<string, HTMLButtonElement>();
  let width = 0;
  let drawn = '';
  const draw = (): void => {
    const layer = model.get('layer');
    const parts = layer.parts ?? [];
    toggle(node, parts.length > 0);
    node.parentElement?.classList.toggle('tb-has-picture', parts.length > 0);
    if (!parts.length || !width) {
      return;
    }
    const key = JSON.stringify([width, layer.norms, parts.map(part => part.name)]);
    if (key !== drawn) {
      drawn = key;
      build(place, layout(layer, width), layer, buttons, name => model.send({ type: 'toggle', name }));
    }
    parts.forEach(part => drawPart(buttons.get(part.name), part));
    shortcuts.forEach(one => one.setAttribute('aria-pressed', String(isShortcut(one.dataset['targets'] ?? '', parts))));
    setText(told, trainableWords(layer));
    setText(more, moreWords(layer));
    toggle(more, Boolean(more.textContent));
  };
  follow(model, ['layer'], draw, cleanup);
  onWidth(place, wide => { width = wide; draw(); }, cleanup);
  return node;
}

/** Whether exactly the modules of a shortcut have adapters. */
export function isShortcut(which: string, parts: LayerPart[]): boolean {
  return parts.every(part => part.adapted === (which === 'all' || part.block === which));
}

/** "1.84 M weights learn, 0.35 % of the model's 5.2 M, in 6 layers alike." */
export function trainableWords(layer: Layer): string {
  const layers = layer.layers ?? 0;
  return `${compact(layer.trainable ?? 0)} weights learn: ${percent(layer.share ?? 0)} of this model, at rank ${layer.rank ?? 0} in ${layers === 1 ? 'its one layer' : `${layers} layers alike`}.`;
}

function moreWords(layer: Layer): string {
  const said: string[] = [];
  if (layer.bias) {
    said.push(`${count(layer.bias)} of them are bias terms.`);
  }
  if (layer.unknown?.length) {
    said.push(`Not part of such a layer: ${layer.unknown.join(', ')}.`);
  }
  return said.join(' ');
}

function drawPart(node: HTMLButtonElement | undefined, part: LayerPart): void {
  if (!node) {
    return;
  }
  node.setAttribute('aria-pressed', String(part.adapted));
  const [, amount] = node.children as unknown as [HTMLElement, HTMLElement];
  setText(amount, part.adapted ? `+ ${compact(part.trainable)}` : 'frozen');
  const sizes = `${count(part.size_in)} to ${count(part.size_out)}`;
  const adapter = part.adapted ? `adapter of ${compact(part.trainable)} weights` : `frozen; an adapter would have ${compact(part.would_train)} weights`;
  node.setAttribute('aria-label', `${part.name}, ${sizes}, ${adapter}`);
  node.title = `${part.name}: ${sizes}; ${adapter}`;
}

function build(place: HTMLElement, drawn: Layout, layer: Layer, buttons: Map<string, HTMLButtonElement>, press: (name: string) => void): void {
  const focused = [...buttons].find(([, one]) => one === document.activeElement)?.[0];
  buttons.clear();
  place.style.height = `${drawn.height}px`;
  const svg = s('svg', { width: drawn.width, height: drawn.height, viewBox: `0 0 ${drawn.width} ${drawn.height}`, 'aria-hidden': 'true' });
  svg.append(s('path', { class: 'tb-residual', d: through(drawn.residual) }));
  const [, [endX, endY]] = drawn.residual;
  svg.append(s('path', { class: 'tb-arrow', d: drawn.wide ? `M${endX - 7} ${endY - 5}L${endX} ${endY}L${endX - 7} ${endY + 5}` : `M${endX - 5} ${endY - 7}L${endX} ${endY}L${endX + 5} ${endY - 7}` }));
  svg.append(...drawn.wires.map(wire => s('path', { class: 'tb-wire', d: through(wire) })));
  for (const [x, y] of drawn.sums) {
    svg.append(s('circle', { class: 'tb-sum', cx: x, cy: y, r: 7 }), s('path', { class: 'tb-plus', d: `M${x - 4} ${y}H${x + 4}M${x} ${y - 4}V${y + 4}` }));
  }
  place.replaceChildren(svg);
  for (const box of drawn.boxes) {
    if (box.kind === 'step') {
      svg.append(
        s('rect', { class: 'tb-step-box', x: box.x, y: box.y, width: box.width, height: box.height, rx: 6 }),
        s('text', { class: 'tb-tick', x: box.x + box.width / 2, y: box.y + box.height / 2 + 4, 'text-anchor': 'middle' }, box.name)
      );
      continue;
    }
    const node = h('button', { type: 'button', class: 'tb-module', 'data-module': box.name }, h('span', { class: 'tb-module-name' }, box.name), h('span', { class: 'tb-module-amount' }));
    Object.assign(node.style, { left: `${box.x}px`, top: `${box.y}px`, width: `${box.width}px`, height: `${box.height}px` });
    node.addEventListener('click', () => press(box.name));
    buttons.set(box.name, node);
    place.append(node);
  }
  if (focused) {
    buttons.get(focused)?.focus();
  }
  place.dataset['layout'] = drawn.wide ? 'wide' : 'tall';
  place.dataset['architecture'] = layer.architecture ?? '';
}
