/** The forecast as one stacked bar against the memory that may be used, with its numbers. */

import { h, setText, toggle } from './dom.ts';
import { bytes, count, duration, stepTime } from './format.ts';

export interface Forecast {
  parts?: { key: string; title: string; bytes: number }[];
  total?: number;
  budget?: number;
  fits?: boolean;
  /** Whether the smallest plan fits well or only just; what is left is spent on speed. */
  fit?: 'fits' | 'tight' | 'no';
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

/** The forecast in two pieces: a head that may stay in sight, and what explains it. */
export interface LiveForecast {
  head: HTMLElement;
  rest: HTMLElement;
  draw: (forecast: Forecast) => void;
}

/** The bar with its legend and what it rests on. */
export function forecastBar(forecast: Forecast): HTMLElement {
  const live = liveForecast();
  live.draw(forecast);
  return h('div', { class: 'tb-forecast' }, live.head, live.rest);
}

/** The same, drawn again in place, so that nothing flickers and what was unfolded stays so. */
export function liveForecast(): LiveForecast {
  const total = h('strong');
  const ofBudget = h('span');
  const verdict = h('span', { class: 'tb-verdict' });
  const time = h('strong');
  const forSteps = h('span');
  const headline = h(
    'div',
    { class: 'tb-headline', role: 'status' },
    h('span', { class: 'tb-figure' }, total, ofBudget),
    verdict,
    h('span', { class: 'tb-figure' }, time, forSteps)
  );
  const bar = new Bar();
  const magnified = new Bar('tb-magnified');
  const waiting = h('p', { class: 'tb-muted' }, 'Working out the forecast …');
  const byPart = h('p', { class: 'tb-muted' }, 'By part, magnified:');
  const head = h('div', { class: 'tb-forecast-head' }, waiting, headline, bar.node);
  const list = h('ul', { class: 'tb-legend' });
  const notes = new Footnotes();
  const rest = h('div', { class: 'tb-forecast-rest' }, byPart, magnified.node, list, notes.node);

  const draw = (forecast: Forecast): void => {
    const known = Boolean(forecast.parts?.length);
    toggle(waiting, !known);
    [headline, bar.node, rest].forEach(node => toggle(node, known));
    if (!known) {
      return;
    }
    const bytesAll = forecast.total ?? 0;
    const budget = forecast.budget ?? 0;
    const scale = Math.max(bytesAll, budget, 1);
    drawHeadline(forecast, { total, ofBudget, verdict, time, forSteps });
    bar.draw(forecast, scale, bytesAll, budget);
    const small = bytesAll < MAGNIFY_BELOW * scale;
    [byPart, magnified.node].forEach(node => toggle(node, small));
    magnified.draw(forecast, bytesAll, bytesAll, 0);
    list.replaceChildren(...legend(forecast, bytesAll));
    notes.draw(forecast);
  };
  return { head, rest, draw };
}

function drawHeadline(
  forecast: Forecast,
  parts: { total: HTMLElement; ofBudget: HTMLElement; verdict: HTMLElement; time: HTMLElement; forSteps: HTMLElement }
): void {
  const total = forecast.total ?? 0;
  const budget = forecast.budget ?? 0;
  const kind = forecast.fit ?? (forecast.fits ? 'fits' : 'no');
  parts.total.dataset['total'] = String(total);
  setText(parts.total, bytes(total));
  setText(parts.ofBudget, ` of ${bytes(budget)}`);
  parts.verdict.className = `tb-verdict tb-${kind}`;
  setText(parts.verdict, kind === 'no' ? 'does not fit' : kind);
  const whole = forecast.seconds_total;
  const known = whole !== null && whole !== undefined;
  const step = forecast.seconds_per_step ?? 0;
  setText(parts.time, known ? duration(whole) : stepTime(step));
  setText(parts.forSteps, known ? ` for ${count(forecast.steps ?? 0)} steps of ${stepTime(step)}` : ' a step');
}

class Bar {
  readonly node: HTMLElement;
  #pieces = new Map<string, HTMLElement>();
  #limit = h('span', { class: 'tb-limit' });

  constructor(kind = '') {
    this.node = h('div', { class: `tb-bar ${kind}`, role: 'img' }, this.#limit);
  }

  draw(forecast: Forecast, scale: number, total: number, budget: number): void {
    const parts = forecast.parts ?? [];
    const said = parts.map(part => `${part.title} ${bytes(part.bytes)}`).join(', ');
    this.node.setAttribute('aria-label', `${bytes(total)}${budget ? ` of ${bytes(budget)}` : ''}: ${said}`);
    for (const part of parts) {
      const piece = this.#pieces.get(part.key) ?? h('span', { class: `tb-piece tb-part-${part.key}` });
      if (!this.#pieces.has(part.key)) {
        this.#pieces.set(part.key, piece);
        this.node.insertBefore(piece, this.#limit);
      }
      piece.title = `${part.title}: ${bytes(part.bytes)}`;
      piece.style.width = `${(100 * part.bytes) / Math.max(scale, 1)}%`;
    }
    toggle(this.#limit, budget > 0 && total > budget);
    this.#limit.title = `Limit ${bytes(budget)}`;
    this.#limit.style.left = `${(100 * budget) / Math.max(scale, 1)}%`;
  }
}

function legend(forecast: Forecast, total: number): HTMLElement[] {
  return (forecast.parts ?? []).map(part => {
    const share = total ? Math.round((100 * part.bytes) / total) : 0;
    return h(
      'li',
      { 'data-part': part.key },
      h('span', { class: `tb-swatch tb-part-${part.key}`, 'aria-hidden': 'true' }),
      h('span', { class: 'tb-legend-title' }, part.title),
      h('span', { class: 'tb-number-cell' }, bytes(part.bytes)),
      h('span', { class: 'tb-number-cell tb-muted' }, `${share} %`)
    );
  });
}

class Footnotes {
  readonly node: HTMLElement;
  #strategy = h('p', { class: 'tb-muted' });
  #advice = h('ul', { class: 'tb-advice' });
  #rungs = h('ul');
  #chosen = h('details', {}, h('summary', {}, 'How this was chosen'), this.#rungs);

  constructor() {
    this.node = h('div', { class: 'tb-footnotes' }, this.#strategy, this.#advice, this.#chosen);
  }

  draw(forecast: Forecast): void {
    const items = (texts: string[] | undefined): HTMLElement[] => (texts ?? []).map(text => h('li', {}, text));
    setText(this.#strategy, [forecast.hardware, ...(forecast.strategy ?? [])].filter(Boolean).join(' · '));
    this.#advice.replaceChildren(...items(forecast.advice));
    this.#rungs.replaceChildren(...items(forecast.rungs));
    toggle(this.#advice, Boolean(forecast.advice?.length));
    toggle(this.#chosen, Boolean(forecast.rungs?.length));
  }
}
