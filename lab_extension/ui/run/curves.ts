/** Loss and memory of a run, as the train panel draws them. */

import { h, toggle } from '../dom.ts';
import { bytes, figure } from '../format.ts';
import type { Cleanup } from '../model.ts';
import { Plot } from '../plot.ts';
import { PlotGroup } from '../plotgroup.ts';
import { smooth } from '../plotmath.ts';
import { points, type RunPicture } from './picture.ts';
import type { Translator } from './rows.ts';

const SMOOTHING = 0.9;

type Four = [Float32Array, Float32Array, Float32Array, Float32Array];
type Three = [Float32Array, Float32Array, Float32Array];

export class RunCurves {
  readonly node: HTMLElement;
  #loss: Plot;
  #memory: Plot;
  #trans: Translator;

  constructor(cleanup: Cleanup, trans: Translator) {
    this.#trans = trans;
    const group = new PlotGroup(() => undefined, cleanup);
    this.#loss = new Plot({ name: 'loss', title: trans.__('Loss'), format: figure }, group, cleanup);
    this.#memory = new Plot(
      { name: 'memory', title: trans.__('Memory'), format: bytes, tick: bytes, base: 1024, fromZero: true },
      group,
      cleanup
    );
    this.node = h('div', { class: 'tb-plots' }, this.#loss.node, this.#memory.node);
  }

  set(run: RunPicture, forecast: number): void {
    const trans = this.#trans;
    const [x, raw, means, counts] = points(run.loss_points, 4) as Four;
    const [ex, ey] = points(run.evaluation_points, 2) as [Float32Array, Float32Array];
    const [mx, now, peak] = points(run.memory_points, 3) as Three;
    this.#loss.setData([
      { name: trans.__('loss'), color: '--tb-series-pale', width: 1, x, y: raw },
      { name: trans.__('smoothed'), color: '--tb-series-1', width: 2, x, y: smooth(means, counts, SMOOTHING) },
      { name: trans.__('evaluation'), color: '--tb-series-2', width: 1.5, marks: true, x: ex, y: ey }
    ]);
    const label = trans.__('forecast %1', bytes(forecast));
    this.#memory.setData(
      [
        { name: trans.__('now'), color: '--tb-series-3', width: 1.5, x: mx, y: now },
        { name: trans.__('peak'), color: '--tb-series-4', width: 1.5, dash: [4, 3], x: mx, y: peak }
      ],
      { band: forecast ? { value: forecast, low: forecast, high: forecast, label } : null }
    );
    toggle(this.#memory.node, mx.length > 0 || forecast > 0);
    toggle(this.node, x.length > 0);
  }
}
