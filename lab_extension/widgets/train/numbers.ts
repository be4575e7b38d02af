/** The numbers of the moment, and how the plan runs it. */

import { h, setText, toggle } from '../../ui/dom.ts';
import { bytes, count, figure } from '../../ui/format.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import type { Model } from './state.ts';

const BUSY =
  'Measured over one step: how much of its time the GPU computed or copied. The rest of the time it waited for the host. ' +
  'A low share means that a step has too little to do: raise the batch and lower the accumulation (what is learnt stays the same), or turn on packing.';

interface Tile {
  node: HTMLElement;
  show: (value: string, note?: string) => void;
}

function tile(name: string, title = ''): Tile {
  const value = h('dd', { class: 'tb-tile-value' });
  const note = h('dd', { class: 'tb-tile-note' });
  const node = h('div', { class: 'tb-tile', title: title || null }, h('dt', {}, name), value, note);
  return {
    node,
    show: (text, more = '') => {
      setText(value, text || '–');
      setText(note, more);
      toggle(note, more !== '');
    }
  };
}

export function numbers(model: Model, cleanup: Cleanup): HTMLElement {
  const tiles = {
    loss: tile('Loss'),
    rate: tile('Learning rate'),
    gradient: tile('Gradient norm', 'How long the update would be before clipping'),
    speed: tile('Tokens a second'),
    peak: tile('Peak memory'),
    busy: tile('GPU busy', BUSY)
  };
  const list = h('dl', { class: 'tb-tiles' }, ...Object.values(tiles).map(item => item.node));
  const plan = h('p', { class: 'tb-muted tb-plan' });
  const node = h('div', { class: 'tb-numbers' }, list, plan);
  const known = (value: number | null, text: (value: number) => string): string => (value === null ? '' : text(value));
  const draw = (): void => {
    const [first, last] = [model.get('first_loss'), model.get('last_loss')];
    tiles.loss.show(known(last, figure), first === null ? '' : `from ${figure(first)}`);
    tiles.rate.show(known(model.get('learning_rate'), figure));
    tiles.gradient.show(known(model.get('gradient_norm'), figure));
    tiles.speed.show(known(model.get('tokens_per_second'), count));
    const [peak, forecast] = [model.get('peak'), model.get('forecast_total')];
    tiles.peak.show(peak ? bytes(peak) : '', peak && forecast ? `${Math.round((100 * peak) / forecast)} % of forecast` : '');
    const [share, ...kernels] = model.get('gpu_busy').split(', ');
    tiles.busy.show(share ?? '', kernels.join(', '));
    toggle(tiles.busy.node, model.get('gpu_busy') !== '');
    const strategy = model.get('strategy');
    const device = model.get('device');
    setText(plan, strategy.length ? `Runs as planned: ${[...strategy, device].filter(Boolean).join(' · ')}` : '');
    toggle(plan, strategy.length > 0);
    toggle(node, last !== null || strategy.length > 0);
  };
  follow(
    model,
    ['first_loss', 'last_loss', 'learning_rate', 'gradient_norm', 'tokens_per_second', 'peak', 'forecast_total', 'gpu_busy', 'strategy', 'device'],
    draw,
    cleanup
  );
  return node;
}
