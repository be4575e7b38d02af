/** The forecast as one stacked bar against the memory that may be used, with its numbers. */

import { h } from './dom.ts';
import { bytes, count, duration } from './format.ts';

export interface Forecast {
  parts?: { key: string; title: string; bytes: number }[];
  total?: number;
  budget?: number;
  fits?: boolean;
  steps?: number | null;
  seconds_per_step?: number;
  seconds_total?: number | null;
  tokens_per_step?: number;
  hardware?: string;
  strategy?: string[];
  rungs?: string[];
  advice?: string[];
}

/** Below this share of the budget the parts are too narrow to see, and are drawn once more. */
const MAGNIFY_BELOW = 0.3;

/** The bar with its legend and what it rests on. */
export function forecastBar(forecast: Forecast): HTMLElement {
  const node = h('div', { class: 'tb-forecast' });
  if (!forecast.parts?.length) {
    node.append(h('p', { class: 'tb-muted' }, 'Working out the forecast …'));
    return node;
  }
  const total = forecast.total ?? 0;
  const budget = forecast.budget ?? 0;
  const scale = Math.max(total, budget, 1);
  node.append(headline(forecast, total, budget), bar(forecast, scale, total, budget));
  if (total < MAGNIFY_BELOW * scale) {
    node.append(h('p', { class: 'tb-muted' }, 'By part, magnified:'), bar(forecast, total, total, 0, 'tb-magnified'));
  }
  node.append(legend(forecast, total));
  node.append(footnotes(forecast));
  return node;
}

function headline(forecast: Forecast, total: number, budget: number): HTMLElement {
  const fits = Boolean(forecast.fits);
  const tight = fits && total > 0.85 * budget;
  const verdict = fits ? (tight ? 'tight' : 'fits') : 'does not fit';
  const kind = fits ? (tight ? 'tight' : 'fits') : 'no';
  const figures = h(
    'span',
    { class: 'tb-figure' },
    h('strong', { 'data-total': total }, bytes(total)),
    ` of ${bytes(budget)}`
  );
  const known = forecast.seconds_total !== null && forecast.seconds_total !== undefined;
  const time = h(
    'span',
    { class: 'tb-figure' },
    h('strong', {}, duration(known ? (forecast.seconds_total as number) : (forecast.seconds_per_step ?? 0))),
    known ? ` for ${count(forecast.steps ?? 0)} steps` : ' a step'
  );
  return h('div', { class: 'tb-headline', role: 'status' }, figures, h('span', { class: `tb-verdict tb-${kind}` }, verdict), time);
}

function bar(forecast: Forecast, scale: number, total: number, budget: number, kind = ''): HTMLElement {
  const said = (forecast.parts ?? []).map(part => `${part.title} ${bytes(part.bytes)}`).join(', ');
  const label = `${bytes(total)} of ${bytes(budget)}: ${said}`;
  const track = h('div', { class: `tb-bar ${kind}`, role: 'img', 'aria-label': label });
  for (const part of forecast.parts ?? []) {
    const piece = h('span', { class: `tb-piece tb-part-${part.key}`, title: `${part.title}: ${bytes(part.bytes)}` });
    piece.style.width = `${(100 * part.bytes) / scale}%`;
    track.append(piece);
  }
  if (budget && total > budget) {
    const mark = h('span', { class: 'tb-limit', title: `Limit ${bytes(budget)}` });
    mark.style.left = `${(100 * budget) / scale}%`;
    track.append(mark);
  }
  return track;
}

function legend(forecast: Forecast, total: number): HTMLElement {
  const list = h('ul', { class: 'tb-legend' });
  for (const part of forecast.parts ?? []) {
    const share = total ? Math.round((100 * part.bytes) / total) : 0;
    list.append(
      h(
        'li',
        { 'data-part': part.key },
        h('span', { class: `tb-swatch tb-part-${part.key}`, 'aria-hidden': 'true' }),
        h('span', { class: 'tb-legend-title' }, part.title),
        h('span', { class: 'tb-number-cell' }, bytes(part.bytes)),
        h('span', { class: 'tb-number-cell tb-muted' }, `${share} %`)
      )
    );
  }
  return list;
}

function footnotes(forecast: Forecast): HTMLElement {
  const strategy = [forecast.hardware, ...(forecast.strategy ?? [])].filter(Boolean).join(' · ');
  const node = h('div', { class: 'tb-footnotes' }, h('p', { class: 'tb-muted' }, strategy));
  if (forecast.advice?.length) {
    node.append(h('ul', { class: 'tb-advice' }, ...forecast.advice.map(item => h('li', {}, item))));
  }
  if (forecast.rungs?.length) {
    const list = h('ul', {}, ...forecast.rungs.map(rung => h('li', {}, rung)));
    node.append(h('details', {}, h('summary', {}, 'How this was chosen'), list));
  }
  return node;
}
