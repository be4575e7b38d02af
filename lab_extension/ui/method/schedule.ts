/** The learning rate over the run, as a curve with the warm-up shaded. */

import { h, setText } from '../dom.ts';
import { count } from '../format.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../model.ts';
import { onWidth, s, through } from '../svg.ts';

export interface Schedule {
  points?: [number, number][];
  steps?: number;
  known?: boolean;
  warmup?: number;
  peak?: number;
  kind?: string;
}

export interface ScheduleState extends PanelState {
  schedule: Schedule;
}

const HEIGHT = 132;
const EDGE = { left: 8, right: 8, top: 18, bottom: 20 };

/** A rate as people write it: 2e-4. */
export function rate(value: number): string {
  if (value === 0 || (value >= 0.01 && value <= 1)) {
    return String(Number(value.toPrecision(3)));
  }
  return value.toExponential().replace(/(\.\d{2})\d*e/, '$1e').replace('e+', 'e');
}

/** The curve's points in pixels. */
export function curve(schedule: Schedule, width: number, height = HEIGHT): [number, number][] {
  const steps = Math.max(1, schedule.steps ?? 1);
  const peak = Math.max(...(schedule.points ?? []).map(([, value]) => value), Number.MIN_VALUE);
  const wide = width - EDGE.left - EDGE.right;
  const high = height - EDGE.top - EDGE.bottom;
  return (schedule.points ?? []).map(([step, value]) => [EDGE.left + (step / steps) * wide, EDGE.top + (1 - value / peak) * high]);
}

export function scheduleView(model: AnyModel<ScheduleState>, cleanup: Cleanup): HTMLElement {
  const about = h('figcaption', { class: 'tb-muted' });
  const place = h('div', { class: 'tb-svg-place' });
  const node = h('figure', { class: 'tb-schedule' }, place, about);
  let width = 320;
  const draw = (): void => {
    const schedule = model.get('schedule');
    place.replaceChildren(picture(schedule, width));
    setText(about, words(schedule));
  };
  follow(model, ['schedule'], draw, cleanup);
  onWidth(place, wide => { width = wide; draw(); }, cleanup);
  return node;
}

function words(schedule: Schedule): string {
  const steps = schedule.steps ?? 0;
  const warm = schedule.warmup ? `rises for ${count(schedule.warmup)} steps, then ` : '';
  const then = schedule.kind === 'linear' ? 'falls evenly to 0' : schedule.kind === 'cosine' ? 'falls in half a wave to 0' : 'stays';
  const over = schedule.known ? `over ${count(steps)} steps` : 'drawn for 100 steps, since the rows are not counted yet';
  return `The rate ${warm}${then}; ${over}.`;
}

function picture(schedule: Schedule, width: number): SVGElement {
  const points = curve(schedule, width);
  const base = HEIGHT - EDGE.bottom;
  const steps = Math.max(1, schedule.steps ?? 1);
  const warmTo = EDGE.left + ((schedule.warmup ?? 0) / steps) * (width - EDGE.left - EDGE.right);
  const label = `Learning rate: ${words(schedule)} Highest ${rate(schedule.peak ?? 0)}.`;
  const svg = s('svg', { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': label });
  if (!points.length) {
    return svg;
  }
  const first = points[0] as [number, number];
  const last = points[points.length - 1] as [number, number];
  if (schedule.warmup) {
    svg.append(s('rect', { class: 'tb-warmup', x: EDGE.left, y: EDGE.top - 4, width: Math.max(1, warmTo - EDGE.left), height: base - EDGE.top + 4 }));
  }
  svg.append(
    s('line', { class: 'tb-axis', x1: EDGE.left, x2: width - EDGE.right, y1: base + 0.5, y2: base + 0.5 }),
    s('path', { class: 'tb-area', d: `${through(points)}L${last[0]} ${base}L${first[0]} ${base}Z` }),
    s('path', { class: 'tb-curve', d: through(points) })
  );
  const top = points.reduce((best, point) => (point[1] < best[1] ? point : best), first);
  const near = top[0] > width - 60;
  svg.append(
    s('circle', { class: 'tb-highest', cx: top[0], cy: top[1], r: 3.5 }),
    s('text', { class: 'tb-tick tb-strong', x: top[0] + (near ? -8 : 8), y: top[1] - 5, 'text-anchor': near ? 'end' : 'start' }, rate(schedule.peak ?? 0)),
    s('text', { class: 'tb-tick', x: EDGE.left, y: HEIGHT - 5 }, schedule.warmup && warmTo - EDGE.left > 70 ? 'warm-up' : 'step 0'),
    s('text', { class: 'tb-tick', x: width - EDGE.right, y: HEIGHT - 5, 'text-anchor': 'end' }, `step ${count(steps)}`)
  );
  return svg;
}
