/** The status bar: GPU memory and the step of the newest live run; nothing where there is neither. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { h, setText } from '../ui/dom.ts';
import { bytes, count } from '../ui/format.ts';
import { gpuMemory, newestLive, stateWord } from '../ui/run/rows.ts';
import { IRuns, OPEN_RUN, SHOW_RUNS } from './tokens';

class StatusItem extends Widget {
  readonly activeChanged = new Signal<this, void>(this);
  #runs: IRuns;
  #button = h('button', { type: 'button', class: 'tb-status' });

  constructor(app: JupyterFrontEnd, runs: IRuns) {
    super();
    this.#runs = runs;
    this.addClass('tunebook-status');
    this.node.append(this.#button);
    this.#button.addEventListener('click', () => {
      const live = newestLive(runs.model.rows);
      void app.commands.execute(live ? OPEN_RUN : SHOW_RUNS, live ? { path: live.path } : {});
    });
    runs.model.changed.connect(this.#draw);
    this.#draw();
  }

  isActive = (): boolean => this.#button.textContent !== '';

  override dispose(): void {
    this.#runs.model.changed.disconnect(this.#draw);
    super.dispose();
  }

  #draw = (): void => {
    const { model, trans } = this.#runs;
    const [memory, live] = [gpuMemory(model.gpus), newestLive(model.rows)];
    const words = [
      memory ? trans.__('GPU %1 / %2', bytes(memory.used), bytes(memory.total)) : '',
      live ? trans.__('step %1 / %2', count(live.step), count(live.total)) : ''
    ];
    setText(this.#button, words.filter(Boolean).join(' · '));
    this.#button.title = live ? `${live.name}: ${stateWord(live.state, trans)}` : (model.gpus ?? []).map(gpu => gpu.name).join(', ');
    this.activeChanged.emit();
  };
}

export const status: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:status',
  description: 'GPU memory and the running step in the status bar.',
  autoStart: true,
  requires: [IRuns],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, runs: IRuns, bar: IStatusBar | null) => {
    if (bar) {
      const item = new StatusItem(app, runs);
      bar.registerStatusItem('tunebook:status', {
        item,
        align: 'right',
        rank: 90,
        isActive: item.isActive,
        activeStateChanged: item.activeChanged
      });
    }
  }
};
