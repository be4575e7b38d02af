/** The train panel: buttons, progress, the live curves, what happened. */

import { button, h, setText, toggle } from '../ui/dom.ts';
import { bytes, columns, count, duration, figure } from '../ui/format.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../ui/model.ts';
import { Plot } from '../ui/plot.ts';

interface Said {
  kind: string;
  step: number;
  text: string;
  do: string;
}

interface TrainState extends PanelState {
  state: string;
  phase: string;
  run_name: string;
  run_path: string;
  device: string;
  step: number;
  total: number;
  eta: number | null;
  seconds: number;
  first_loss: number | null;
  last_loss: number | null;
  learning_rate: number | null;
  tokens_per_second: number | null;
  peak: number;
  gpu_busy: string;
  strategy: string[];
  forecast_total: number;
  loss_points: DataView;
  memory_points: DataView;
  evaluation_points: DataView;
  messages: Said[];
}

type Model = AnyModel<TrainState>;

const WORKING = ['preparing', 'running', 'stopping'];
const RESUMABLE = ['stopped', 'interrupted', 'failed'];
const UNANSWERED = 1000; // milliseconds after which Stop interrupts the kernel
const BUSY =
  'Measured over one step: how much of its time the GPU computed or copied. The rest of the time it waited for the host. ' +
  'A low share means that a step has too little to do: raise the batch and lower the accumulation (what is learnt stays the same), or turn on packing.';

export default definePanel<TrainState>('train', ({ model, body, cleanup }) => {
  body.append(buttons(model, cleanup), progress(model, cleanup), figures(model, cleanup), plots(model, cleanup), events(model, cleanup));
});

function buttons(model: Model, cleanup: Cleanup): HTMLElement {
  const start = button('Start training', () => model.send({ type: 'start' }), { class: 'tb-button tb-primary', 'data-do': 'start' });
  const stop = button('Stop', () => askToStop(model, stop), { class: 'tb-button tb-danger', 'data-do': 'stop' });
  const resume = button('Resume', () => model.send({ type: 'resume' }), { class: 'tb-button tb-primary', 'data-do': 'resume' });
  const draw = (): void => {
    const state = model.get('state');
    const working = WORKING.includes(state);
    toggle(start, !working);
    setText(start, state === 'new' ? 'Start training' : 'Start a new run');
    start.classList.toggle('tb-primary', !RESUMABLE.includes(state));
    toggle(stop, working);
    stop.disabled = state === 'stopping';
    setText(stop, state === 'stopping' ? 'Stopping …' : 'Stop');
    toggle(resume, RESUMABLE.includes(state) && model.get('step') > 0);
  };
  follow(model, ['state', 'step'], draw, cleanup);
  return h('div', { class: 'tb-buttons' }, resume, start, stop);
}

/** Stop by message; if the kernel's main thread is blocked by a cell, interrupt that too. */
function askToStop(model: Model, stop: HTMLButtonElement): void {
  model.send({ type: 'stop' });
  stop.disabled = true;
  window.setTimeout(() => {
    if (['preparing', 'running'].includes(model.get('state'))) {
      stop.disabled = false;
      void model.widget_manager?.kernel?.interrupt?.();
    }
  }, UNANSWERED);
}

function progress(model: Model, cleanup: Cleanup): HTMLElement {
  const state = h('span', { class: 'tb-state', role: 'status' });
  const words = h('span', { class: 'tb-muted tb-progress-words' });
  const fill = h('span', { class: 'tb-fill' });
  const bar = h('div', { class: 'tb-progress', role: 'progressbar', 'aria-label': 'Training', 'aria-valuemin': 0 }, fill);
  const node = h('div', { class: 'tb-progress-place' }, h('div', { class: 'tb-progress-head' }, state, words), bar);
  const draw = (): void => {
    const [step, total] = [model.get('step'), model.get('total')];
    node.dataset['state'] = model.get('state');
    node.dataset['step'] = String(step);
    setText(state, stateWord(model.get('state')));
    setText(words, progressWords(model));
    bar.setAttribute('aria-valuemax', String(total || 1));
    bar.setAttribute('aria-valuenow', String(step));
    fill.style.width = `${total ? Math.min(100, (100 * step) / total) : 0}%`;
    toggle(bar, total > 0 || model.get('state') === 'preparing');
    bar.classList.toggle('tb-waiting', model.get('state') === 'preparing');
  };
  follow(model, ['state', 'step', 'total', 'eta', 'seconds', 'phase', 'run_name'], draw, cleanup);
  return node;
}

function stateWord(state: string): string {
  return state === 'new' ? 'Not started' : state.charAt(0).toUpperCase() + state.slice(1);
}

function progressWords(model: Model): string {
  const [step, total, eta, state] = [model.get('step'), model.get('total'), model.get('eta'), model.get('state')];
  const words = [
    total ? `step ${count(step)} of ${count(total)}` : '',
    WORKING.includes(state) ? model.get('phase') : '',
    eta !== null && state === 'running' ? `${duration(eta)} left` : '',
    model.get('seconds') > 0 && !WORKING.includes(state) ? `took ${duration(model.get('seconds'))}` : '',
    model.get('run_name')
  ];
  return words.filter(Boolean).join(' · ');
}

function figures(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('dl', { class: 'tb-stats' });
  const busy = h('p', { class: 'tb-gpu-busy', title: BUSY });
  const plan = h('p', { class: 'tb-muted tb-plan-words' });
  const node = h('div', { class: 'tb-figures' }, list, busy, plan);
  const draw = (): void => {
    const [first, last] = [model.get('first_loss'), model.get('last_loss')];
    toggle(list, last !== null);
    const [rate, speed] = [model.get('learning_rate'), model.get('tokens_per_second')];
    const shown: [string, string][] = [
      ['First loss', first === null ? '–' : figure(first)],
      ['Last loss', last === null ? '–' : figure(last)],
      ['Learning rate', rate === null ? '–' : figure(rate)],
      ['Tokens a second', speed === null ? '–' : count(speed)],
      ['Peak memory', model.get('peak') ? bytes(model.get('peak')) : '–']
    ];
    list.replaceChildren(...shown.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
    const [share, strategy] = [model.get('gpu_busy'), model.get('strategy')];
    setText(busy, share ? `GPU busy ${share}` : '');
    toggle(busy, share !== '');
    setText(plan, strategy.length ? `Plan: ${strategy.join(' · ')}` : '');
    toggle(plan, strategy.length > 0);
    toggle(node, last !== null || strategy.length > 0);
  };
  follow(model, ['first_loss', 'last_loss', 'learning_rate', 'tokens_per_second', 'peak', 'gpu_busy', 'strategy'], draw, cleanup);
  return node;
}

function plots(model: Model, cleanup: Cleanup): HTMLElement {
  const loss = new Plot(
    {
      title: 'Loss',
      x: 'step',
      y: 'loss',
      format: figure,
      series: [
        { name: 'loss', color: '--tb-series-pale', width: 1 },
        { name: 'smoothed', color: '--tb-series-1', width: 2 },
        { name: 'evaluation', color: '--tb-series-2', width: 1.5, marks: true }
      ]
    },
    cleanup
  );
  const memory = new Plot(
    {
      title: 'Memory',
      x: 'step',
      y: 'memory',
      format: bytes,
      tick: bytes,
      base: 1024,
      fromZero: true,
      series: [
        { name: 'now', color: '--tb-series-3', width: 1.5 },
        { name: 'peak', color: '--tb-series-4', width: 1.5, dash: [4, 3] }
      ]
    },
    cleanup
  );
  loss.node.dataset['plot'] = 'loss';
  memory.node.dataset['plot'] = 'memory';
  const node = h('div', { class: 'tb-plots' }, loss.node, memory.node);
  const draw = (): void => {
    const [x, raw, smooth] = columns(model.get('loss_points'), 3) as [Float32Array, Float32Array, Float32Array];
    const [ex, ey] = columns(model.get('evaluation_points'), 2) as [Float32Array, Float32Array];
    const [mx, now, peak] = columns(model.get('memory_points'), 3) as [Float32Array, Float32Array, Float32Array];
    const forecast = model.get('forecast_total');
    const xMax = model.get('total') || undefined;
    loss.setData({ lines: [{ x, y: raw }, { x, y: smooth }, { x: ex, y: ey }], ...(xMax ? { xMax } : {}) });
    memory.setData({
      lines: [{ x: mx, y: now }, { x: mx, y: peak }],
      ...(xMax ? { xMax } : {}),
      ...(forecast ? { limit: { value: forecast, label: `forecast ${bytes(forecast)}` } } : {})
    });
    toggle(node, model.get('state') !== 'new' || x.length > 0);
  };
  follow(model, ['loss_points', 'evaluation_points', 'memory_points', 'forecast_total', 'total', 'state'], draw, cleanup);
  return node;
}

function events(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('ol', { class: 'tb-events', tabindex: 0, 'aria-label': 'What happened' });
  const path = h('p', { class: 'tb-muted tb-path' });
  const node = h('div', { class: 'tb-events-place' }, list, path);
  const draw = (): void => {
    const shown = model.get('messages').map(said =>
      h(
        'li',
        { class: `tb-event tb-event-${said.kind}` },
        h('span', { class: 'tb-event-step' }, `step ${said.step}`),
        h('span', {}, said.text, said.do ? h('span', { class: 'tb-muted' }, ` ${said.do}`) : null)
      )
    );
    list.replaceChildren(...shown.reverse());
    setText(path, model.get('run_path') ? `Everything about this run is in ${model.get('run_path')}` : '');
    toggle(node, model.get('messages').length > 0);
  };
  follow(model, ['messages', 'run_path'], draw, cleanup);
  return node;
}
