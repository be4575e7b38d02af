/** A small line plot on a canvas: axes, ticks, a few series, marks, a limit line, a hover readout. */

import { h, setText, toggle } from './dom.ts';
import { nearest, tickLabel, ticks } from './format.ts';
import type { Cleanup } from './model.ts';

export interface Series {
  name: string;
  /** A CSS custom property such as `--tb-series-1`. */
  color: string;
  width: number;
  dash?: number[];
  marks?: boolean;
}

export interface PlotOptions {
  title: string;
  x: string;
  y: string;
  series: Series[];
  /** Text of a value in the readout and of a tick. */
  format: (value: number) => string;
  tick?: (value: number, step: number) => string;
  base?: 10 | 1024;
  fromZero?: boolean;
}

export interface PlotData {
  /** For each series its own x and y; the first series is the one that hovering follows. */
  lines: { x: Float32Array; y: Float32Array }[];
  xMax?: number;
  limit?: { value: number; label: string };
}

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  x: [number, number];
  y: [number, number];
}

const FONT_SIZE = 11;

export class Plot {
  readonly node: HTMLElement;
  #options: PlotOptions;
  #canvas: HTMLCanvasElement;
  #readout: HTMLElement;
  #keys: HTMLElement[];
  #data: PlotData = { lines: [] };
  #hover: number | null = null;
  #waiting = 0;

  constructor(options: PlotOptions, cleanup: Cleanup) {
    this.#options = options;
    this.#canvas = h('canvas', { role: 'img', 'aria-label': `${options.title}: no points yet` });
    this.#readout = h('span', { class: 'tb-readout' });
    this.#keys = options.series.map(series => {
      const line = h('span', { class: 'tb-key', 'aria-hidden': 'true' });
      line.style.borderTopColor = `var(${series.color})`;
      line.style.borderTopStyle = series.dash ? 'dashed' : 'solid';
      return h('span', { class: 'tb-key-item' }, line, series.name);
    });
    const head = h('figcaption', {}, h('span', { class: 'tb-plot-title' }, options.title), ...this.#keys, this.#readout);
    this.node = h('figure', { class: 'tb-plot' }, head, h('div', { class: 'tb-canvas' }, this.#canvas));
    this.#listen(cleanup);
  }

  setData(data: PlotData): void {
    this.#data = data;
    const first = data.lines[0];
    const length = first?.x.length ?? 0;
    this.node.dataset['points'] = String(length);
    this.#keys.forEach((key, at) => toggle(key, at === 0 || Boolean(data.lines[at]?.x.length)));
    const label = first && length
      ? `from ${this.#value(first.y[0])} at ${this.#options.x} ${first.x[0]} to ${this.#value(first.y[length - 1])} at ${this.#options.x} ${first.x[length - 1]}`
      : 'no points yet';
    this.#canvas.setAttribute('aria-label', `${this.#options.title}: ${label}`);
    this.redraw();
  }

  redraw = (): void => {
    if (!this.#waiting) {
      this.#waiting = requestAnimationFrame(() => {
        this.#waiting = 0;
        this.#draw();
      });
    }
  };

  #listen(cleanup: Cleanup): void {
    const size = new ResizeObserver(this.redraw);
    size.observe(this.#canvas);
    const theme = new MutationObserver(this.#themeChanged);
    const watched = { attributes: true, attributeFilter: ['class', 'data-jp-theme-light', 'data-jp-theme-name', 'theme'] };
    theme.observe(document.body, watched);
    theme.observe(document.documentElement, watched);
    const scheme = window.matchMedia('(prefers-color-scheme: dark)');
    scheme.addEventListener('change', this.redraw);
    this.#canvas.addEventListener('pointermove', event => {
      this.#hover = event.offsetX;
      this.redraw();
    });
    this.#canvas.addEventListener('pointerleave', () => {
      this.#hover = null;
      this.redraw();
    });
    cleanup.add(() => {
      size.disconnect();
      theme.disconnect();
      scheme.removeEventListener('change', this.redraw);
      cancelAnimationFrame(this.#waiting);
    });
  }

  /** The attribute of a theme changes before its style sheet counts: draw again a little later. */
  #themeChanged = (): void => {
    this.redraw();
    for (const delay of [100, 500]) {
      window.setTimeout(this.redraw, delay);
    }
  };

  #value(value: number | undefined): string {
    return value === undefined ? '' : this.#options.format(value);
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const context = this.#canvas.getContext('2d');
    if (!context || width < 20 || height < 20) {
      return;
    }
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.#canvas);
    context.font = `${FONT_SIZE}px ${style.fontFamily}`;
    const [x, y] = this.#ranges();
    const frame = this.#axes(context, style, width, height, x, y);
    this.#lines(context, style, frame);
    this.#showHover(context, style, frame);
  }

  #ranges(): [[number, number], [number, number]] {
    let [xLow, xHigh, low, high] = [Infinity, this.#data.xMax ?? -Infinity, Infinity, -Infinity];
    for (const line of this.#data.lines) {
      for (let at = 0; at < line.x.length; at += 1) {
        const value = line.y[at] as number;
        if (Number.isFinite(value)) {
          [low, high] = [Math.min(low, value), Math.max(high, value)];
          xLow = Math.min(xLow, line.x[at] as number);
          xHigh = Math.max(xHigh, line.x[at] as number);
        }
      }
    }
    if (this.#data.limit && Number.isFinite(high)) {
      high = Math.max(high, 1.1 * this.#data.limit.value); // room for its label
    }
    if (!(low <= high)) {
      [low, high] = [0, 1];
    }
    if (!Number.isFinite(xLow)) {
      xLow = 0;
    }
    const floor = this.#options.fromZero ? 0 : low;
    const space = 0.06 * (high - floor || Math.abs(high) || 1);
    return [[xLow, xHigh > xLow ? xHigh : xLow + 1], [this.#options.fromZero ? 0 : Math.max(floor - space, low >= 0 ? 0 : -Infinity), high + space]];
  }

  #axes(
    context: CanvasRenderingContext2D,
    style: CSSStyleDeclaration,
    width: number,
    height: number,
    x: [number, number],
    y: [number, number]
  ): Frame {
    const yTicks = ticks(y[0], y[1], Math.max(2, Math.floor(height / 42)), this.#options.base ?? 10);
    const yStep = (yTicks[1] ?? 1) - (yTicks[0] ?? 0);
    const label = this.#options.tick ?? tickLabel;
    const labels = yTicks.map(value => label(value, yStep));
    const left = Math.ceil(Math.max(...labels.map(text => context.measureText(text).width), 16)) + 10;
    const frame = { left, top: 8, width: width - left - 12, height: height - 8 - 34, x, y };
    context.strokeStyle = style.getPropertyValue('--tb-grid');
    context.fillStyle = style.getPropertyValue('--tb-muted');
    context.lineWidth = 1;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    yTicks.forEach((value, at) => {
      const place = Math.round(yPlace(frame, value)) + 0.5;
      stroke(context, [[left, place], [left + frame.width, place]]);
      context.fillText(labels[at] as string, left - 6, place);
    });
    const xTicks = ticks(x[0], x[1], Math.max(2, Math.floor(frame.width / 70))).filter(Number.isInteger);
    const xStep = (xTicks[1] ?? 1) - (xTicks[0] ?? 0);
    context.textAlign = 'center';
    context.textBaseline = 'top';
    for (const value of xTicks) {
      const text = tickLabel(value, xStep);
      const half = context.measureText(text).width / 2;
      const place = Math.min(xPlace(frame, value), width - half - 1);
      context.fillText(text, place, frame.top + frame.height + 5);
    }
    context.fillText(this.#options.x, left + frame.width / 2, frame.top + frame.height + 20);
    return frame;
  }

  #lines(context: CanvasRenderingContext2D, style: CSSStyleDeclaration, frame: Frame): void {
    const limit = this.#data.limit;
    context.save();
    if (limit) {
      const place = yPlace(frame, limit.value);
      context.strokeStyle = style.getPropertyValue('--tb-limit');
      context.setLineDash([5, 4]);
      stroke(context, [[frame.left, place], [frame.left + frame.width, place]]);
      context.fillStyle = style.getPropertyValue('--tb-muted');
      context.textAlign = 'right';
      context.textBaseline = 'bottom';
      context.fillText(limit.label, frame.left + frame.width, place - 3);
    }
    this.#options.series.forEach((series, at) => {
      const line = this.#data.lines[at];
      if (line) {
        drawLine(context, frame, line, series, style.getPropertyValue(series.color));
      }
    });
    context.restore();
  }

  #showHover(context: CanvasRenderingContext2D, style: CSSStyleDeclaration, frame: Frame): void {
    const first = this.#data.lines[0];
    if (this.#hover === null || !first?.x.length) {
      setText(this.#readout, '');
      return;
    }
    const wanted = frame.x[0] + ((this.#hover - frame.left) / frame.width) * (frame.x[1] - frame.x[0]);
    const x = first.x[nearest(first.x, wanted)] as number;
    context.strokeStyle = style.getPropertyValue('--tb-muted');
    context.setLineDash([]);
    stroke(context, [[xPlace(frame, x), frame.top], [xPlace(frame, x), frame.top + frame.height]]);
    const said = this.#options.series.flatMap((series, at) => {
      const line = this.#data.lines[at];
      const index = line ? nearest(line.x, x) : -1;
      return line && index >= 0 && line.x[index] === x ? [`${series.name} ${this.#value(line.y[index])}`] : [];
    });
    setText(this.#readout, `${this.#options.x} ${x}: ${said.join(', ')}`);
  }
}

function xPlace(frame: Frame, value: number): number {
  return frame.left + ((value - frame.x[0]) / (frame.x[1] - frame.x[0])) * frame.width;
}

function yPlace(frame: Frame, value: number): number {
  return frame.top + frame.height - ((value - frame.y[0]) / (frame.y[1] - frame.y[0])) * frame.height;
}

function stroke(context: CanvasRenderingContext2D, points: [number, number][]): void {
  context.beginPath();
  points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function drawLine(
  context: CanvasRenderingContext2D,
  frame: Frame,
  line: { x: Float32Array; y: Float32Array },
  series: Series,
  color: string
): void {
  context.strokeStyle = color;
  context.fillStyle = color;
  context.lineWidth = series.width;
  context.lineJoin = 'round';
  context.setLineDash(series.dash ?? []);
  context.beginPath();
  let pen = false;
  for (let at = 0; at < line.x.length; at += 1) {
    const value = line.y[at] as number;
    if (!Number.isFinite(value)) {
      pen = false;
      continue;
    }
    const [x, y] = [xPlace(frame, line.x[at] as number), yPlace(frame, value)];
    if (pen) {
      context.lineTo(x, y);
    } else {
      context.moveTo(x, y);
    }
    pen = true;
  }
  context.stroke();
  if (series.marks || line.x.length === 1) {
    for (let at = 0; at < line.x.length; at += 1) {
      context.beginPath();
      context.arc(xPlace(frame, line.x[at] as number), yPlace(frame, line.y[at] as number), 3, 0, 2 * Math.PI);
      context.fill();
    }
  }
}
