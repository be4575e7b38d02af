/** Loss and memory of a run, as the train panel draws them. */

import { h, toggle } from '../dom.ts';
import { bytes, figure } from '../format.ts';
import type { Cleanup } from '../model.ts';
import { Plot } from '../plot.ts';
import { points, type RunPicture } from './picture.ts';
import type { Translator } from './rows.ts';

export class RunCurves {
  readonly node: HTMLElement;
  #loss: Plot;
  #memory: Plot;
  #trans: Translator;

  constructor(cleanup: Cleanup, trans: Translator) {
    this.#trans = trans;
    this.#loss = new Plot(
      {
        title: trans.__('Loss'),
        x: trans.__('step'),
        y: trans.__('loss'),
        format: figure,
        series: [
          { name: trans.__('loss'), color: '--tb-series-pale', width: 1 },
          { name: trans.__('smoothed'), color: '--tb-series-1', width: 2 },
          { name: trans.__('evaluation'), color: '--tb-series-2', width: 1.5, marks: true }
        ]
      },
      cleanup
    );
    this.#memory = new Plot(
      {
        title: trans.__('Memory'),
        x: trans.__('step'),
        y: trans.__('memory'),
        format: bytes,
        tick: bytes,
        base: 1024,
        fromZero: true,
        series: [
          { name: trans.__('now'), color: '--tb-series-3', width: 1.5 },
          { name: trans.__('peak'), color: '--tb-series-4', width: 1.5, dash: [4, 3] }
        ]
      },
      cleanup
    );
    this.#loss.node.dataset['plot'] = 'loss';
    this.#memory.node.dataset['plot'] = 'memory';
    this.node = h('div', { class: 'tb-plots' }, this.#loss.node, this.#memory.node);
  }

  set(run: RunPicture, forecast: number): void {
    const [x, raw, smooth] = points(run.loss_points, 3) as [Float32Array, Float32Array, Float32Array];
    const [ex, ey] = points(run.evaluation_points, 2) as [Float32Array, Float32Array];
    const [mx, now, peak] = points(run.memory_points, 3) as [Float32Array, Float32Array, Float32Array];
    const range = run.total ? { xMax: run.total } : {};
    const limit = forecast ? { limit: { value: forecast, label: this.#trans.__('forecast %1', bytes(forecast)) } } : {};
    this.#loss.setData({ lines: [{ x, y: raw }, { x, y: smooth }, { x: ex, y: ey }], ...range });
    this.#memory.setData({ lines: [{ x: mx, y: now }, { x: mx, y: peak }], ...range, ...limit });
    toggle(this.node, x.length > 0);
  }
}
