/** The strategy ladder as bars against the budget, and the slider that moves the budget. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { aboutField } from '../form.ts';
import { bytes, stepTime } from '../format.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../model.ts';

export interface Rung {
  title: string;
  about: string;
  steps: number;
  taken: number;
  total: number;
  seconds: number;
  saves: number;
  costs: number;
}

export interface Ladder {
  rungs?: Rung[];
  least?: number;
  most?: number;
  card?: number;
  auto?: number;
  budget?: number;
  is_auto?: boolean;
  seconds?: number;
  total?: number;
}

export interface LadderState extends PanelState {
  ladder: Ladder;
}

const STEPS = 1000;
/** The field that the slider sets. */
export const BUDGET = 'training.memory_budget';

/** Where a number of bytes stands between two others, on a scale of equal ratios; 0 to 1. */
export function place(value: number, low: number, high: number): number {
  if (!(high > low) || value <= low) {
    return 0;
  }
  return Math.min(1, Math.log(value / low) / Math.log(high / low));
}

/** The bytes at a place; the other way of `place`. */
export function bytesAt(where: number, low: number, high: number): number {
  return low * (high / low) ** where;
}

/** What the next rung, down and up, would bring; in words. */
export function nextWords(ladder: Ladder): string[] {
  const rungs = ladder.rungs ?? [];
  const said: string[] = [];
  const begun = rungs.findLastIndex(rung => rung.taken > 0);
  const partly = begun >= 0 && (rungs[begun] as Rung).taken < (rungs[begun] as Rung).steps;
  const at = partly ? begun : begun + 1;
  const up = partly ? begun : at - 1;
  const down = rungs[at];
  const total = ladder.total ?? 0;
  const seconds = ladder.seconds ?? 0;
  if (down && down.total < total) {
    said.push(`Next rung down, ${lower(down.title)}: ${bytes(total - down.total)} less, ${slower(down.seconds, seconds)}.`);
  }
  const above = up > 0 ? rungs[up - 1] : undefined;
  if (above && above.total > total) {
    said.push(`With ${bytes(above.total - total)} more it need not ${lower((rungs[up] as Rung).title)}: ${slower(above.seconds, seconds)}.`);
  }
  return said;
}

function lower(title: string): string {
  return title.startsWith('MLP') ? title : title.charAt(0).toLowerCase() + title.slice(1);
}

function slower(then: number, now: number): string {
  const share = now > 0 ? Math.round(100 * (then / now - 1)) : 0;
  return share > 0 ? `${share} % slower` : share < 0 ? `${-share} % faster` : 'as fast';
}

/** The slider above the rungs; both follow the panel's `ladder`. */
export function ladderView(model: AnyModel<LadderState>, cleanup: Cleanup): HTMLElement {
  const slider = budgetSlider(model, cleanup);
  const list = h('ol', { class: 'tb-rungs' });
  const next = h('div', { class: 'tb-next-rung tb-muted' });
  const node = h(
    'section',
    { class: 'tb-ladder' },
    slider,
    h('p', { class: 'tb-ladder-title' }, 'What the planner gives up for memory, cheapest first'),
    list,
    next
  );
  const draw = (): void => {
    const ladder = model.get('ladder');
    const rungs = ladder.rungs ?? [];
    toggle(node, rungs.length > 0);
    const scale = Math.max(ladder.most ?? 0, ...rungs.map(rung => rung.total), 1);
    while (list.childElementCount > rungs.length) {
      list.lastElementChild?.remove();
    }
    rungs.forEach((rung, at) => {
      const row = (list.children[at] as HTMLElement | undefined) ?? list.appendChild(rungRow());
      drawRung(row, rung, at, scale, ladder.budget ?? 0);
    });
    next.replaceChildren(...nextWords(ladder).map(text => h('p', {}, text)));
  };
  follow(model, ['ladder'], draw, cleanup);
  return node;
}

function rungRow(): HTMLElement {
  return h(
    'li',
    { class: 'tb-rung' },
    h('span', { class: 'tb-rung-mark', 'aria-hidden': 'true' }),
    h('span', { class: 'tb-rung-title' }),
    h('span', { class: 'tb-rung-taken' }),
    h('span', { class: 'tb-rung-bar', 'aria-hidden': 'true' }, h('span'), h('i')),
    h('span', { class: 'tb-number-cell tb-rung-total' }),
    h('span', { class: 'tb-number-cell tb-rung-time' })
  );
}

function drawRung(row: HTMLElement, rung: Rung, at: number, scale: number, budget: number): void {
  const [mark, title, taken, bar, total, time] = row.children as unknown as HTMLElement[] as [
    HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement
  ];
  const state = rung.taken >= rung.steps ? 'all' : rung.taken > 0 ? 'part' : 'none';
  row.dataset['taken'] = state;
  row.title = rung.about;
  setText(mark, state === 'all' ? '✓' : state === 'part' ? '◐' : '');
  setText(title, rung.title);
  const words = state === 'all' ? 'taken' : state === 'part' ? `${rung.taken} of ${rung.steps} layers` : 'not needed';
  setText(taken, at === 0 ? 'the start' : words);
  const [fill, limit] = bar.children as unknown as [HTMLElement, HTMLElement];
  fill.style.width = `${(100 * rung.total) / scale}%`;
  limit.style.left = `${Math.min(100, (100 * budget) / scale)}%`;
  toggle(limit, budget > 0 && budget < scale);
  setText(total, bytes(rung.total));
  const slowed = at > 0 && rung.costs > 0.005 * rung.seconds ? `+${stepTime(rung.costs)}` : at > 0 ? '+0' : stepTime(rung.seconds);
  setText(time, slowed);
}

function budgetSlider(model: AnyModel<LadderState>, cleanup: Cleanup): HTMLElement {
  const id = freshId('budget');
  const input = h('input', { type: 'range', id, class: 'tb-budget-slider', min: 0, max: STEPS, step: 1, 'data-field': BUDGET });
  const value = h('output', { class: 'tb-budget-value', for: id });
  const auto = button('Auto', () => model.send({ type: 'budget', memory: 'auto' }), { class: 'tb-button tb-small', 'aria-pressed': 'false' });
  const marks = h('div', { class: 'tb-slider-marks', 'aria-hidden': 'true' });
  const why = h('p', { class: 'tb-muted' });
  const field = model.get('fields').find(one => one.path === BUDGET);
  const about = field && aboutField(field, id);
  const node = h(
    'div',
    { class: 'tb-budget' },
    h('div', { class: 'tb-budget-head' }, h('label', { class: 'tb-label', for: id }, 'Memory budget'), about?.info, value, auto),
    about?.help,
    input,
    marks,
    why
  );
  const bounds = (): [number, number] => {
    const ladder = model.get('ladder');
    const low = Math.max(1, ladder.least ?? 1);
    return [low, Math.max(low, ladder.card ?? low)];
  };
  const send = oneAtATime(model, (where: number) => {
    const [low, high] = bounds();
    model.send({ type: 'budget', memory: Math.ceil(bytesAt(where / STEPS, low, high)) });
  }, cleanup);
  input.addEventListener('input', () => {
    const [low, high] = bounds();
    setText(value, bytes(bytesAt(Number(input.value) / STEPS, low, high)));
    send(Number(input.value));
  });
  const draw = (): void => {
    const ladder = model.get('ladder');
    const [low, high] = bounds();
    const budget = ladder.budget ?? 0;
    const fits = (ladder.least ?? 0) <= (ladder.card ?? 0);
    input.disabled = !fits;
    setText(why, fits ? '' : `Even the smallest plan needs ${bytes(low)}; this machine has ${bytes(ladder.card ?? 0)}.`);
    toggle(why, !fits);
    auto.setAttribute('aria-pressed', String(Boolean(ladder.is_auto)));
    input.setAttribute('aria-valuetext', `${bytes(budget)}${ladder.is_auto ? ', automatic' : ''}`);
    setText(value, `${bytes(budget)}${ladder.is_auto ? ', what is free' : ''}`);
    if (document.activeElement !== input || ladder.is_auto) {
      input.value = String(Math.round(STEPS * place(budget, low, high)));
    }
    drawMarks(marks, ladder, low, high);
  };
  follow(model, ['ladder'], draw, cleanup);
  return node;
}

function drawMarks(marks: HTMLElement, ladder: Ladder, low: number, high: number): void {
  const at = (value: number, text: string, kind: string): HTMLElement => {
    const mark = h('span', { class: `tb-slider-mark ${kind}` }, text);
    mark.style.setProperty('--tb-at', String(place(value, low, high)));
    return mark;
  };
  const most = ladder.most ?? 0;
  const between = most > low && most < high && place(most, low, high) > 0.3 && place(most, low, high) < 0.7;
  marks.replaceChildren(
    at(low, `least ${bytes(low)}`, 'tb-first'),
    ...(between ? [at(most, `keeps all ${bytes(most)}`, '')] : []),
    at(high, `all of it ${bytes(high)}`, 'tb-last')
  );
}

/** Send the newest value only, once the answer to the one before is there. */
function oneAtATime<V>(model: AnyModel<LadderState>, send: (value: V) => void, cleanup: Cleanup): (value: V) => void {
  let waiting: V | undefined;
  let timer = 0;
  const answered = (): void => {
    window.clearTimeout(timer);
    timer = 0;
    const value = waiting;
    waiting = undefined;
    if (value !== undefined) {
      begin(value);
    }
  };
  const begin = (value: V): void => {
    timer = window.setTimeout(answered, 250); // a value that changes nothing has no answer
    send(value);
  };
  model.on('change:ladder', answered);
  cleanup.add(() => {
    window.clearTimeout(timer);
    model.off('change:ladder', answered);
  });
  return value => {
    if (timer) {
      waiting = value;
    } else {
      begin(value);
    }
  };
}
