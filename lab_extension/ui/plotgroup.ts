/** Plots over the same steps: one zoom, one reading line, one frame of drawing; mouse, touch and keys. */

import { nearest } from './format.ts';
import type { Cleanup } from './model.ts';
import type { Plot } from './plot.ts';
import { moved, zoomed, type Range } from './plotmath.ts';

const STEP = 1.4; // one notch of the wheel or one key
const CLICK = 4; // pixels; a drag that is shorter is none

export class PlotGroup {
  /** The step that is read, or null. */
  reading: number | null = null;
  /** What is being dragged over, or null. */
  selection: Range | null = null;
  #plots: Plot[] = [];
  #window: Range | null = null;
  #waiting = 0;
  #changed: (window: Range | null) => void;

  /** @param changed - is told when the user zooms; null for everything */
  constructor(changed: (window: Range | null) => void, cleanup: Cleanup) {
    this.#changed = changed;
    const theme = new MutationObserver(this.#themeChanged);
    const watched = { attributes: true, attributeFilter: ['class', 'data-jp-theme-light', 'data-jp-theme-name', 'theme'] };
    theme.observe(document.body, watched);
    theme.observe(document.documentElement, watched);
    const schemes = ['(prefers-color-scheme: dark)', '(forced-colors: active)'].map(query => window.matchMedia(query));
    schemes.forEach(scheme => scheme.addEventListener('change', this.redraw));
    cleanup.add(() => {
      theme.disconnect();
      schemes.forEach(scheme => scheme.removeEventListener('change', this.redraw));
      cancelAnimationFrame(this.#waiting);
    });
  }

  get plots(): readonly Plot[] {
    return this.#plots;
  }

  /** First and last step of everything that is drawn. */
  get whole(): Range {
    const extents = this.#plots.map(plot => plot.extent);
    const low = Math.min(...extents.map(extent => extent[0]));
    const high = Math.max(...extents.map(extent => extent[1]));
    return low <= high ? [low, high] : [0, 1];
  }

  /** The steps in view. */
  get view(): Range {
    return this.#window ?? this.whole;
  }

  get zoomed(): boolean {
    return this.#window !== null;
  }

  /** Show these steps without telling anybody; null shows everything. */
  show(window: Range | null): void {
    this.#window = window;
    this.redraw();
  }

  /** Zoom as the user: about a step, or back to everything. */
  zoom(factor: number, at: number): void {
    this.#go(zoomed(this.view, factor, at, this.whole));
  }

  reset(): void {
    this.#go(null);
  }

  redraw = (): void => {
    if (!this.#waiting) {
      this.#waiting = requestAnimationFrame(() => {
        this.#waiting = 0;
        this.#plots.forEach(plot => plot.draw());
      });
    }
  };

  /** Take a plot in; called by the plot itself. */
  add(plot: Plot, stage: HTMLElement, cleanup: Cleanup): void {
    this.#plots.push(plot);
    const size = new ResizeObserver(this.redraw);
    size.observe(stage);
    cleanup.add(() => size.disconnect());
    stage.addEventListener('wheel', event => this.#wheel(event, plot, stage), { passive: false });
    stage.addEventListener('pointerdown', event => this.#press(event, plot, stage));
    stage.addEventListener('pointermove', event => {
      if (!event.buttons || event.pointerType === 'touch') {
        this.#read(plot.stepAt(event.offsetX), plot);
      }
    });
    stage.addEventListener('pointerleave', () => this.#leave());
    stage.addEventListener('dblclick', () => this.reset());
    stage.addEventListener('keydown', event => this.#key(event, plot));
    stage.addEventListener('blur', () => {
      plot.announce(false);
      this.#leave();
    });
  }

  #go(window: Range | null): void {
    this.#window = window;
    this.redraw();
    this.#changed(window);
  }

  #leave(): void {
    this.reading = null;
    this.redraw();
  }

  #read(step: number, plot: Plot): void {
    const at = nearest(plot.steps, step);
    this.reading = at >= 0 ? (plot.steps[at] as number) : null;
    this.redraw();
  }

  /** The wheel scrolls the notebook, as everywhere; with Ctrl, or on a plot that has the focus, it zooms. */
  #wheel(event: WheelEvent, plot: Plot, stage: HTMLElement): void {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== stage) {
      return;
    }
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && this.#window) {
      const width = this.#window[1] - this.#window[0];
      this.#go(moved(this.#window, (event.deltaX / stage.clientWidth) * width, this.whole));
    } else {
      this.zoom(event.deltaY > 0 ? STEP : 1 / STEP, plot.stepAt(event.offsetX));
    }
  }

  /** Drag over steps to zoom in on them; with Shift, drag what is in view. */
  #press(event: PointerEvent, plot: Plot, stage: HTMLElement): void {
    if (event.button !== 0 || event.pointerType === 'touch') {
      return;
    }
    const [from, began, start] = [event.offsetX, plot.stepAt(event.offsetX), this.view];
    const pan = event.shiftKey && this.#window !== null;
    stage.setPointerCapture(event.pointerId);
    const move = (now: PointerEvent): void => {
      if (pan) {
        const width = start[1] - start[0];
        this.#window = moved(start, ((from - now.offsetX) / stage.clientWidth) * width, this.whole);
      } else if (Math.abs(now.offsetX - from) > CLICK) {
        const ends = [began, plot.stepAt(now.offsetX)].sort((a, b) => a - b) as [number, number];
        this.selection = ends;
      }
      this.redraw();
    };
    const up = (): void => {
      stage.removeEventListener('pointermove', move);
      stage.removeEventListener('pointerup', up);
      stage.removeEventListener('pointercancel', up);
      const chosen = this.selection;
      this.selection = null;
      if (pan) {
        this.#go(this.#window);
      } else if (chosen) {
        this.#go(zoomed(chosen, 1, (chosen[0] + chosen[1]) / 2, this.whole));
      }
    };
    stage.addEventListener('pointermove', move);
    stage.addEventListener('pointerup', up);
    stage.addEventListener('pointercancel', up);
  }

  #key(event: KeyboardEvent, plot: Plot): void {
    const steps = plot.steps;
    const [low, high] = this.view;
    const here = this.reading ?? high;
    const at = nearest(steps, here);
    const by = event.shiftKey ? 10 : 1;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => this.#keyTo(plot, at - by),
      ArrowRight: () => this.#keyTo(plot, this.reading === null ? at : at + by),
      Home: () => this.#keyTo(plot, nearest(steps, low)),
      End: () => this.#keyTo(plot, nearest(steps, high)),
      '+': () => this.zoom(1 / STEP, here),
      '=': () => this.zoom(1 / STEP, here),
      '-': () => this.zoom(STEP, here),
      '0': () => this.reset()
    };
    const action = actions[event.key];
    if (action && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      event.stopPropagation();
      action();
    }
  }

  #keyTo(plot: Plot, at: number): void {
    const step = plot.steps[Math.min(Math.max(at, 0), plot.steps.length - 1)];
    if (step === undefined) {
      return;
    }
    plot.announce(true);
    this.reading = step;
    if (this.#window && (step < this.#window[0] || step > this.#window[1])) {
      const width = this.#window[1] - this.#window[0];
      this.#go(moved([step - width / 2, step + width / 2], 0, this.whole));
    }
    this.redraw();
  }

  /** The attribute of a theme changes before its style sheet counts: draw again a little later. */
  #themeChanged = (): void => {
    this.redraw();
    for (const delay of [100, 500]) {
      window.setTimeout(this.redraw, delay);
    }
  };
}
