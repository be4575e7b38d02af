/** The buttons, the state in words, and the bar of progress. */

import { button, h, setText, toggle } from '../../ui/dom.ts';
import { duration } from '../../ui/format.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import { RESUMABLE, WORKING, type Model } from './state.ts';

const UNANSWERED = 1000; // milliseconds after which Stop interrupts the kernel

export function buttons(model: Model, cleanup: Cleanup): HTMLElement {
  const make = (label: string, type: string, kind = '', act?: () => void): HTMLButtonElement =>
    button(label, act ?? (() => model.send({ type })), { class: `tb-button ${kind}`, 'data-do': type });
  const start = make('Start training', 'start', 'tb-primary');
  const resume = make('Resume', 'resume', 'tb-primary');
  const pause = make('Pause', 'pause');
  const unpause = make('Continue', 'unpause', 'tb-primary');
  const stop = make('Stop', 'stop', 'tb-danger', () => askToStop(model, stop));
  const save = make('Save now', 'save_now', 'tb-quiet');
  const sample = make('Ask now', 'sample_now', 'tb-quiet');
  save.title = 'Write a checkpoint after this step';
  sample.title = 'Let the model answer the sample prompts after this step';
  const once = h('span', { class: 'tb-button-group' }, save, sample);
  const note = h('p', { class: 'tb-muted tb-colab' }, 'While the cell runs, Colab holds clicks back: stop with the cell’s own stop button. Nothing is lost.');
  const draw = (): void => {
    const [state, requests, colab] = [model.get('state'), model.get('requests'), model.get('colab')];
    const [working, live] = [WORKING.includes(state), ['running', 'paused'].includes(state)];
    const pausing = state !== 'paused' && requests.includes('pause');
    toggle(start, !working);
    setText(start, state === 'new' ? 'Start training' : 'Start a new run');
    start.classList.toggle('tb-primary', !RESUMABLE.includes(state));
    toggle(resume, RESUMABLE.includes(state) && model.get('step') > 0);
    toggle(pause, !colab && live && state !== 'paused');
    pause.disabled = pausing;
    setText(pause, pausing ? 'Pausing …' : 'Pause');
    toggle(unpause, !colab && state === 'paused');
    unpause.disabled = state === 'paused' && !requests.includes('pause');
    toggle(stop, !colab && working);
    stop.disabled = state === 'stopping';
    setText(stop, state === 'stopping' ? 'Stopping …' : 'Stop');
    toggle(once, !colab && live);
    save.disabled = requests.includes('save');
    setText(save, save.disabled ? 'Saving …' : 'Save now');
    sample.disabled = requests.includes('sample');
    setText(sample, sample.disabled ? 'Asking …' : 'Ask now');
    toggle(note, colab && working);
  };
  follow(model, ['state', 'step', 'requests', 'colab'], draw, cleanup);
  return h('div', { class: 'tb-buttons' }, resume, start, unpause, pause, stop, once, note);
}

/** Stop by message; if the kernel's main thread is blocked by a cell, interrupt that too. */
function askToStop(model: Model, stop: HTMLButtonElement): void {
  model.send({ type: 'stop' });
  stop.disabled = true;
  window.setTimeout(() => {
    if (['preparing', 'running', 'paused'].includes(model.get('state'))) {
      stop.disabled = false;
      void model.widget_manager?.kernel?.interrupt?.();
    }
  }, UNANSWERED);
}

export function progress(model: Model, cleanup: Cleanup): HTMLElement {
  const state = h('span', { class: 'tb-state', role: 'status' });
  const words = h('span', { class: 'tb-muted tb-progress-words' });
  const name = h('span', { class: 'tb-muted tb-run-name', dir: 'auto' });
  const fill = h('span', { class: 'tb-fill' });
  const bar = h('div', { class: 'tb-progress', role: 'progressbar', 'aria-label': 'Training', 'aria-valuemin': 0 }, fill);
  const head = h('div', { class: 'tb-progress-head' }, state, words, name);
  const node = h('div', { class: 'tb-progress-place' }, head, bar);
  const draw = (): void => {
    const [step, total] = [model.get('step'), model.get('total')];
    node.dataset['state'] = model.get('state');
    node.dataset['step'] = String(step);
    setText(state, stateWord(model.get('state')));
    setText(words, progressWords(model));
    setText(name, model.get('run_name'));
    bar.setAttribute('aria-valuemax', String(total || 1));
    bar.setAttribute('aria-valuenow', String(step));
    bar.setAttribute('aria-valuetext', total ? `step ${step} of ${total}` : 'not begun');
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
  const [state, step, total, eta] = [model.get('state'), model.get('step'), model.get('total'), model.get('eta')];
  if (state === 'preparing') {
    return model.get('phase') ? `${model.get('phase')} …` : '…';
  }
  const parts: string[] = [];
  if (total) {
    parts.push(`step ${step.toLocaleString('en')} of ${total.toLocaleString('en')}`);
  }
  if (eta !== null && (state === 'running' || state === 'paused')) {
    parts.push(`${duration(eta)} left`);
  } else if (model.get('seconds') > 0 && !WORKING.includes(state)) {
    parts.push(`took ${duration(model.get('seconds'))}`);
  }
  return parts.join(' · ');
}
