/** How long the rows are, with the maximum length as a line to move and what that would cost. */

import { button, debounce, h, setText, toggle } from '../dom.ts';
import { bytes, count, duration } from '../format.ts';
import { follow, type Cleanup } from '../model.ts';
import { Axis, keyedStop, share } from './axis.ts';
import type { Lengths, Model, Stop } from './state.ts';

const PATIENCE = 700; // milliseconds after the last key until its limit is taken

export function lengthView(model: Model, cleanup: Cleanup): HTMLElement {
  return new LengthChart(model, cleanup).node;
}

class LengthChart {
  readonly node: HTMLElement;
  #model: Model;
  #axis = new Axis({});
  #bars = h('div', { class: 'tb-length-bars', 'aria-hidden': 'true' });
  #ticks = h('div', { class: 'tb-length-ticks', 'aria-hidden': 'true' });
  #value = h('span', { class: 'tb-length-value' });
  #line = h('div', { class: 'tb-length-line', role: 'slider', tabindex: 0, 'aria-label': 'Maximum length in tokens', 'aria-orientation': 'horizontal', 'data-do': 'length' }, this.#value);
  #plot = h('div', { class: 'tb-length-plot' }, this.#bars, this.#line);
  #rows = h('p', { role: 'status' });
  #cost = h('p', { class: 'tb-length-cost' });
  #about = h('p', { class: 'tb-muted' });
  #fit = button('', () => this.#take(this.#whole), { class: 'tb-button tb-small', 'data-do': 'fit-longest' });
  #at = 0; // the stop that is shown
  #moved = false; // it is not the one in use
  #try = debounce(() => this.#model.send({ type: 'try_length', limit: this.#limit }), 90);
  #later = debounce(() => this.#take(this.#at), PATIENCE);

  constructor(model: Model, cleanup: Cleanup) {
    this.#model = model;
    const head = h('div', { class: 'tb-length-head' }, h('h4', {}, 'Length of the rows'), this.#fit);
    this.node = h('div', { class: 'tb-lengths' }, head, this.#plot, this.#ticks, h('div', { class: 'tb-length-words' }, this.#rows, this.#cost, this.#about));
    this.#plot.addEventListener('pointerdown', event => this.#press(event));
    this.#line.addEventListener('keydown', event => this.#key(event));
    this.#line.addEventListener('blur', () => this.#moved && this.#later.flush());
    follow(model, ['lengths'], () => this.#renew(), cleanup);
    follow(model, ['trial'], () => this.#say(), cleanup);
  }

  get #limit(): number {
    return this.#axis.stops[this.#at]?.[0] ?? 0;
  }

  /** The first stop at which nothing is cut. */
  get #whole(): number {
    const found = this.#axis.stops.findIndex(stop => stop[2] === 0);
    return found < 0 ? this.#axis.stops.length - 1 : found;
  }

  #renew(): void {
    const lengths = this.#model.get('lengths');
    toggle(this.node, Boolean(lengths.rows));
    this.#axis = new Axis(lengths);
    this.#moved = false;
    this.#at = this.#axis.stop(lengths.limit ?? 0);
    this.#drawTicks();
    this.#draw();
  }

  #drawTicks(): void {
    const marks = this.#axis.ticks().map(value => {
      const mark = h('span', {}, count(value));
      mark.style.insetInlineStart = percent(this.#axis.place(value));
      return mark;
    });
    this.#ticks.replaceChildren(...marks);
  }

  #draw(): void {
    const { bins = [] } = this.#model.get('lengths');
    const most = Math.max(1, ...bins.map(bin => bin[2]));
    const limit = this.#limit;
    const drawn = bins.filter(bin => bin[2] > 0).map(([from, to, rows]) => {
      const bar = h('span', { class: from >= limit ? 'tb-over' : '', title: `${count(from)} to ${count(to - 1)} tokens: ${count(rows)} rows` });
      const [left, right] = [this.#axis.place(from), this.#axis.place(to)];
      bar.style.insetInlineStart = percent(left);
      bar.style.width = percent(right - left);
      bar.style.height = percent(Math.max(0.02, rows / most));
      return bar;
    });
    this.#bars.replaceChildren(...drawn);
    const place = this.#axis.place(limit);
    this.#line.style.insetInlineStart = percent(place);
    this.#line.classList.toggle('tb-late', place > 0.5);
    setText(this.#value, `${count(limit)} tokens`);
    this.#say();
  }

  #say(): void {
    const lengths = this.#model.get('lengths');
    const stop = this.#axis.stops[this.#at];
    if (!stop) {
      return;
    }
    const words = consequences(stop, lengths);
    setText(this.#rows, words);
    setText(this.#cost, this.#costText());
    this.#cost.classList.toggle('tb-does-not-fit', this.#model.get('trial').fits === false);
    setText(this.#about, lengths.of ? `Counted on ${count(lengths.rows ?? 0)} rows, spread over all ${count(lengths.of)}; all are counted while you look around.` : '');
    const most = this.#axis.stops.at(-1)?.[0] ?? 0;
    for (const [name, value] of Object.entries({ valuemin: this.#axis.stops[0]?.[0] ?? 0, valuemax: most, valuenow: this.#limit, valuetext: `${count(this.#limit)} tokens. ${words}` })) {
      this.#line.setAttribute(`aria-${name}`, String(value));
    }
    const whole = this.#axis.stops[this.#whole]?.[0] ?? 0;
    toggle(this.#fit, !this.#moved && whole !== lengths.limit);
    setText(this.#fit, `Set to ${count(whole)}: no row is cut`);
  }

  #costText(): string {
    const trial = this.#model.get('trial');
    if (trial.limit === this.#limit && trial.memory === undefined) {
      return 'There would be nothing to learn.';
    }
    if (trial.limit !== this.#limit || trial.memory === undefined) {
      return this.#moved ? 'Working out memory and time …' : 'Move the line to see what another limit would cost.';
    }
    const memory = `Memory ${bytes(trial.memory)}${trial.memory_now !== trial.memory ? ` instead of ${bytes(trial.memory_now ?? 0)}` : ', as now'}`;
    const time = trial.seconds == null || trial.seconds_now == null ? '' : `; time about ${duration(trial.seconds)}${trial.seconds !== trial.seconds_now ? ` instead of ${duration(trial.seconds_now)}` : ''}`;
    return `${memory}${time}.${trial.fits === false ? ` This does not fit into ${bytes(trial.budget ?? 0)}.` : ''}`;
  }

  #move(at: number): void {
    if (at !== this.#at) {
      this.#at = at;
      this.#moved = this.#limit !== this.#model.get('lengths').limit;
      this.#draw();
      this.#try();
    }
  }

  /** Take a stop as the limit from now on. */
  #take(at: number): void {
    this.#move(at);
    if (this.#limit !== this.#model.get('lengths').limit) {
      this.#model.send({ type: 'length', limit: this.#limit });
    }
  }

  #press(event: PointerEvent): void {
    if (event.button !== 0) {
      return;
    }
    event.preventDefault();
    this.#line.focus({ preventScroll: true });
    this.#plot.setPointerCapture(event.pointerId);
    const box = this.#plot.getBoundingClientRect();
    const follows = (at: PointerEvent): void => this.#move(this.#axis.nearest((at.clientX - box.left) / box.width));
    const end = (last: Event): void => {
      this.#plot.removeEventListener('pointermove', follows);
      if (last.type === 'pointerup') {
        this.#take(this.#at);
      } else {
        this.#renew();
      }
    };
    follows(event);
    this.#plot.addEventListener('pointermove', follows);
    this.#plot.addEventListener('pointerup', end, { once: true });
    this.#plot.addEventListener('pointercancel', end, { once: true });
  }

  #key(event: KeyboardEvent): void {
    const to = keyedStop(event.key, this.#at, this.#axis.stops.length - 1);
    if (to !== undefined && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#move(to);
      this.#later();
    } else if (event.key === 'Enter' && this.#moved) {
      this.#later.flush();
    } else if (event.key === 'Escape' && this.#moved) {
      event.preventDefault();
      this.#renew();
    }
  }
}

/** What one limit does to the rows, in words. */
export function consequences([, , cut, out, lost, learned]: Stop, { rows = 0, tokens = 0, trained = 0 }: Lengths): string {
  if (cut === 0) {
    return 'No row is cut.';
  }
  const teach = out ? ` ${count(out)} ${out === 1 ? 'row has' : 'rows have'} nothing left to learn.` : '';
  return `${count(cut)} of ${count(rows)} rows (${share(cut, rows)}) are cut: ${share(lost, tokens)} of all tokens are lost, ${share(learned, trained)} of those that are learned.${teach}`;
}

function percent(place: number): string {
  return `${(100 * place).toFixed(3)}%`;
}
