/** A line plot on a canvas: axes, lines, a band, a reading line; the same plot as a part of a file. */

import { h, setText, toggle } from './dom.ts';
import { nearest, tickLabel } from './format.ts';
import type { Cleanup } from './model.ts';
import { CanvasPen, type Pen, type Point } from './pen.ts';
import type { PlotGroup } from './plotgroup.ts';
import { scaleOf, scaleTicks, share, type Range, type Scale } from './plotmath.ts';

export interface Line {
  name: string;
  /** A CSS custom property such as `--tb-series-1`. */
  color: string;
  width: number;
  dash?: readonly number[];
  marks?: boolean;
  x: Float32Array;
  y: Float32Array;
}

export interface Band {
  value: number;
  low: number;
  high: number;
  label: string;
}

export interface PlotOptions {
  name: string;
  title: string;
  /** Text of a value in the readout and of a tick. */
  format: (value: number) => string;
  tick?: (value: number, step: number) => string;
  base?: 10 | 1024;
  fromZero?: boolean;
  small?: boolean;
}

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  x: Scale;
  y: Scale;
}

type Style = (name: string) => string;

const CLOSE = 0.005; // of the steps in view
const KEYS = 'Left and right arrows move the reading line, plus and minus zoom, 0 shows everything.';

export class Plot {
  readonly node: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly options: PlotOptions;
  log = false;
  #group: PlotGroup;
  #head: HTMLElement;
  #keys: HTMLElement;
  #readout: HTMLElement;
  #lines: Line[] = [];
  #hidden: ReadonlySet<string> = new Set();
  #band: Band | null = null;
  #frame: Frame | null = null;
  #onToggle: ((name: string) => void) | undefined;

  constructor(options: PlotOptions, group: PlotGroup, cleanup: Cleanup, onToggle?: (name: string) => void) {
    this.options = options;
    this.#group = group;
    this.#onToggle = onToggle;
    this.canvas = h('canvas', { 'aria-hidden': 'true' });
    this.#readout = h('p', { class: 'tb-readout', 'aria-live': 'off' });
    this.#keys = h('span', { class: 'tb-keys' });
    this.#head = h('div', { class: 'tb-plot-head' }, h('span', { class: 'tb-plot-title' }, options.title), this.#keys);
    this.node = h('div', { class: `tb-plot${options.small ? ' tb-plot-small' : ''}`, 'data-plot': options.name });
    const stage = h('div', { class: 'tb-canvas', role: 'img', tabindex: 0 }, this.canvas);
    this.node.append(this.#head, stage, this.#readout);
    group.add(this, stage, cleanup);
  }

  get stage(): HTMLElement {
    return this.canvas.parentElement as HTMLElement;
  }

  /** First and last step of all lines. */
  get extent(): Range {
    let [low, high] = [Infinity, -Infinity];
    for (const line of this.#lines) {
      if (line.x.length) {
        low = Math.min(low, line.x[0] as number);
        high = Math.max(high, line.x[line.x.length - 1] as number);
      }
    }
    return [low, high];
  }

  /** Steps at which the first line that is shown has a point. */
  get steps(): Float32Array {
    return this.#shown()[0]?.x ?? new Float32Array(0);
  }

  setData(lines: Line[], options: { band?: Band | null; hidden?: ReadonlySet<string>; log?: boolean } = {}): void {
    this.#lines = lines.filter(line => line.x.length);
    this.#band = options.band ?? null;
    this.#hidden = options.hidden ?? new Set();
    this.log = options.log ?? false;
    this.node.dataset['points'] = String(lines[0]?.x.length ?? 0);
    this.#drawKeys();
    this.stage.setAttribute('aria-label', `${this.options.title}: ${this.#said()}. ${KEYS}`);
    this.#group.redraw();
  }

  /** Draw on the page; the readout too. */
  draw(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const context = this.canvas.getContext('2d');
    if (!context || width < 20 || height < 20) {
      return;
    }
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      [this.canvas.width, this.canvas.height] = [wide, high];
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const computed = getComputedStyle(this.canvas);
    const style: Style = name => computed.getPropertyValue(name).trim();
    const pen = new CanvasPen(context, computed.fontFamily);
    this.#frame = this.drawOn(pen, style, width, height);
    this.#drawReading(pen, style, this.#frame);
  }

  /** Draw axes and lines into a rectangle from the origin. */
  drawOn(pen: Pen, style: Style, width: number, height: number): Frame {
    const frame = this.#axes(pen, style, width, height);
    pen.within(frame.left, frame.top - 2, frame.width + 2, frame.height + 4, () => {
      this.#drawBand(pen, style, frame);
      for (const line of this.#shown()) {
        drawLine(pen, frame, line, style(line.color));
      }
    });
    return frame;
  }

  /** The step under a place on the canvas. */
  stepAt(offset: number): number {
    const frame = this.#frame;
    if (!frame) {
      return 0;
    }
    return frame.x.low + ((offset - frame.left) / frame.width) * (frame.x.high - frame.x.low);
  }

  /** What the lines say at a step, in words. */
  reading(step: number): string {
    const said = this.#shown().flatMap(line => {
      const at = this.#near(line, step);
      return at >= 0 ? [`${line.name} ${this.options.format(line.y[at] as number)}`] : [];
    });
    return said.length ? `step ${step.toLocaleString('en')}: ${said.join(' · ')}` : '';
  }

  /** Let a screen reader hear the readout, while it is moved by the keyboard. */
  announce(on: boolean): void {
    this.#readout.setAttribute('aria-live', on ? 'polite' : 'off');
  }

  /** The point of a line that is read at a step: the nearest, if none stands there but one is close by. */
  #near(line: Line, step: number): number {
    const at = nearest(line.x, step);
    const [low, high] = this.#group.view;
    return at >= 0 && Math.abs((line.x[at] as number) - step) <= CLOSE * (high - low) ? at : -1;
  }

  #shown(): Line[] {
    return this.#lines.filter(line => !this.#hidden.has(line.name));
  }

  #said(): string {
    const line = this.#shown().find(item => item.x.length);
    if (!line) {
      return 'no points yet';
    }
    const [first, last] = [0, line.x.length - 1];
    const value = (at: number): string => this.options.format(line.y[at] as number);
    return `${line.name} from ${value(first)} at step ${line.x[first]} to ${value(last)} at step ${line.x[last]}`;
  }

  /** A legend whose names switch their curve on and off; nothing for a single curve. */
  #drawKeys(): void {
    const wanted = this.#lines.length > 1 ? this.#lines : [];
    const names = wanted.map(line => line.name).join('\n');
    if (this.#keys.dataset['names'] !== names) {
      this.#keys.dataset['names'] = names;
      this.#keys.replaceChildren(...wanted.map(line => this.#key(line)));
    }
    if (this.#onToggle) {
      wanted.forEach((line, at) => this.#keys.children[at]?.setAttribute('aria-pressed', String(!this.#hidden.has(line.name))));
    }
  }

  #key(line: Line): HTMLElement {
    const mark = h('span', { class: 'tb-key', 'aria-hidden': 'true' });
    mark.style.borderTopColor = `var(${line.color})`;
    mark.style.borderTopStyle = line.dash?.length ? ((line.dash[0] as number) < 3 ? 'dotted' : 'dashed') : 'solid';
    const name = h('span', { class: 'tb-key-name', dir: 'auto' }, line.name);
    if (!this.#onToggle) {
      return h('span', { class: 'tb-key-item' }, mark, name);
    }
    const key = h('button', { type: 'button', class: 'tb-key-item', title: `Show or hide ${line.name}` }, mark, name);
    key.addEventListener('click', () => this.#onToggle?.(line.name));
    return key;
  }

  #scales(): [Scale, Scale] {
    const view = this.#group.view;
    const x = { low: view[0], high: view[1] > view[0] ? view[1] : view[0] + 1, log: false };
    let [low, high] = [Infinity, -Infinity];
    for (const line of this.#shown()) {
      const [from, to] = [nearest(line.x, x.low) - 1, nearest(line.x, x.high) + 1];
      for (let at = Math.max(0, from); at <= Math.min(to, line.x.length - 1); at += 1) {
        const value = line.y[at] as number;
        if (Number.isFinite(value) && (!this.log || value > 0)) {
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
    if (this.#band && Number.isFinite(high)) {
      high = Math.max(high, this.#band.high * 1.08); // room for its label
    }
    return [x, scaleOf(low, high, { fromZero: this.options.fromZero ?? false, log: this.log })];
  }

  #axes(pen: Pen, style: Style, width: number, height: number): Frame {
    const [x, y] = this.#scales();
    const bottom = this.options.small ? 20 : 34;
    const inner = height - 8 - bottom;
    const yTicks = scaleTicks(y, Math.max(2, Math.floor(inner / (this.options.small ? 26 : 36))), this.options.base ?? 10);
    const label = this.options.tick ?? tickLabel;
    const labels = yTicks.map(value => label(value, y.log ? value : Math.abs((yTicks[1] ?? 1) - (yTicks[0] ?? 0))));
    const left = Math.ceil(Math.max(...labels.map(text => pen.textWidth(text)), 16)) + 10;
    const frame = { left, top: 8, width: width - left - 12, height: inner, x, y };
    const muted = style('--tb-muted');
    yTicks.forEach((value, at) => {
      const place = Math.round(yPlace(frame, value)) + 0.5;
      pen.line([[left, place], [left + frame.width, place]], { color: style('--tb-grid'), width: 1 });
      pen.text(labels[at] as string, [left - 6, place], { color: muted, align: 'right' });
    });
    const xTicks = scaleTicks(x, Math.max(2, Math.floor(frame.width / (this.options.small ? 56 : 70)))).filter(Number.isInteger);
    for (const value of xTicks) {
      const text = value.toLocaleString('en');
      const half = pen.textWidth(text) / 2;
      const place = Math.min(Math.max(xPlace(frame, value), half), width - half - 1);
      pen.text(text, [place, frame.top + inner + 5], { color: muted, align: 'center', baseline: 'top' });
    }
    if (!this.options.small) {
      pen.text('step', [left + frame.width / 2, frame.top + inner + 20], { color: muted, align: 'center', baseline: 'top' });
    }
    return frame;
  }

  #drawBand(pen: Pen, style: Style, frame: Frame): void {
    const band = this.#band;
    if (!band) {
      return;
    }
    const [top, bottom] = [yPlace(frame, band.high), yPlace(frame, band.low)];
    pen.box(frame.left, top, frame.width, bottom - top, style('--tb-limit'), 0.14);
    const place = yPlace(frame, band.value);
    pen.line([[frame.left, place], [frame.left + frame.width, place]], { color: style('--tb-limit'), width: 1, dash: [5, 4] });
    pen.text(band.label, [frame.left + frame.width - 2, top - 2], { color: style('--tb-muted'), align: 'right', baseline: 'bottom' });
  }

  #drawReading(pen: Pen, style: Style, frame: Frame): void {
    const { reading, selection } = this.#group;
    const [bottom, right] = [frame.top + frame.height, frame.left + frame.width];
    if (selection) {
      const [a, b] = [xPlace(frame, selection[0]), xPlace(frame, selection[1])].map(x => Math.min(Math.max(x, frame.left), right)) as [number, number];
      pen.box(Math.min(a, b), frame.top, Math.abs(b - a), frame.height, style('--tb-accent'), 0.16);
    }
    const inView = reading !== null && reading >= frame.x.low && reading <= frame.x.high;
    if (inView) {
      const place = Math.round(xPlace(frame, reading)) + 0.5;
      pen.line([[place, frame.top], [place, bottom]], { color: style('--tb-muted'), width: 1 });
      for (const line of this.#shown()) {
        const at = this.#near(line, reading);
        const value = line.y[at] as number;
        if (at >= 0 && Number.isFinite(value) && (!frame.y.log || value > 0)) {
          const spot: Point = [xPlace(frame, line.x[at] as number), yPlace(frame, value)];
          pen.dot(spot, 4.5, style('--tb-surface'));
          pen.dot(spot, 3, style(line.color));
        }
      }
    }
    setText(this.#readout, inView ? this.reading(reading) : '');
    toggle(this.#readout, true);
  }
}

function xPlace(frame: Frame, value: number): number {
  return frame.left + share(frame.x, value) * frame.width;
}

function yPlace(frame: Frame, value: number): number {
  return frame.top + frame.height - share(frame.y, value) * frame.height;
}

function drawLine(pen: Pen, frame: Frame, line: Line, color: string): void {
  const stroke = { color, width: line.width, dash: line.dash ?? [] };
  const from = Math.max(0, nearest(line.x, frame.x.low) - 1);
  const to = Math.min(line.x.length - 1, nearest(line.x, frame.x.high) + 1);
  let run: Point[] = [];
  const end = (): void => {
    if (run.length > 1) {
      pen.line(run, stroke);
    }
    if (run.length === 1 || line.marks) {
      run.forEach(point => pen.dot(point, line.marks ? 3 : 2, color));
    }
    run = [];
  };
  for (let at = from; at <= to; at += 1) {
    const value = line.y[at] as number;
    if (!Number.isFinite(value) || (frame.y.log && value <= 0)) {
      end();
    } else {
      run.push([xPlace(frame, line.x[at] as number), yPlace(frame, value)]);
    }
  }
  end();
}
