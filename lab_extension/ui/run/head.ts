/** The head of a run's document: what it is, how far it is, what can be done with it. */

import { button, h, setText, toggle } from '../dom.ts';
import { bytes, count, duration, figure } from '../format.ts';
import { codeBlock, threeParts } from '../frame.ts';
import type { RunPicture } from './picture.ts';
import { accepts, isLive, isUnfinished, stateOf, stateWord, WISHES, wishWords, type Translator, type Wish } from './rows.ts';

export interface HeadActions {
  ask: (wish: Wish) => void;
  reveal?: (() => void) | undefined;
  copyPath: () => void;
}

export class RunHead {
  readonly node: HTMLElement;
  #trans: Translator;
  #name = h('h2', { class: 'tb-title', dir: 'auto' });
  #path = h('p', { class: 'tb-muted tb-path', dir: 'auto' });
  #state = h('span', { class: 'tb-state', role: 'status' });
  #words = h('span', { class: 'tb-muted' });
  #fill = h('span', { class: 'tb-fill' });
  #bar: HTMLElement;
  #wishes = new Map<Wish, HTMLButtonElement>();
  #facts = h('dl', { class: 'tb-stats' });
  #failure = h('div', { role: 'alert' });
  #failed = '';
  #resume: ReturnType<typeof codeBlock>;
  #resumePlace: HTMLElement;

  constructor(actions: HeadActions, trans: Translator) {
    this.#trans = trans;
    this.#bar = h('div', { class: 'tb-progress', role: 'progressbar', 'aria-label': trans.__('Training'), 'aria-valuemin': 0 }, this.#fill);
    for (const wish of WISHES) {
      const { label, about } = wishWords(wish, trans);
      const kind = wish === 'stop' ? 'tb-danger' : wish === 'continue' ? 'tb-primary' : '';
      this.#wishes.set(wish, button(label, () => actions.ask(wish), { class: `tb-button ${kind}`, 'data-do': wish, title: about }));
    }
    const reveal = actions.reveal ? button(trans.__('Show in the file browser'), actions.reveal, { class: 'tb-button tb-quiet' }) : null;
    const copy = button(trans.__('Copy path'), actions.copyPath, { class: 'tb-button tb-quiet' });
    const buttons = h('div', { class: 'tb-buttons' }, ...this.#wishes.values(), reveal, copy);
    this.#resume = codeBlock('Python');
    const lead = trans.__('It can be continued from its last checkpoint. In a notebook:');
    this.#resumePlace = h('div', { class: 'tb-run-resume' }, h('p', { class: 'tb-muted' }, lead), this.#resume.box);
    this.node = h(
      'div',
      { class: 'tb-run-head' },
      h('div', { class: 'tb-run-title' }, h('div', {}, this.#name, this.#path), buttons),
      h('div', { class: 'tb-progress-place' }, h('div', { class: 'tb-progress-head' }, h('span', { class: 'tb-dot', 'aria-hidden': 'true' }), this.#state, this.#words), this.#bar),
      this.#failure,
      this.#resumePlace,
      this.#facts
    );
  }

  set(run: RunPicture): void {
    const live = isLive(run.state);
    this.node.dataset['state'] = run.state;
    this.node.dataset['step'] = String(run.step);
    setText(this.#name, run.name);
    setText(this.#path, run.path);
    setText(this.#state, stateWord(stateOf(run), this.#trans));
    setText(this.#words, this.#progress(run, live));
    this.#bar.setAttribute('aria-valuemax', String(run.total || 1));
    this.#bar.setAttribute('aria-valuenow', String(run.step));
    this.#fill.style.width = `${run.total ? Math.min(100, (100 * run.step) / run.total) : 0}%`;
    this.#offer(run, live);
    toggle(this.#resumePlace, isUnfinished(run.state) && run.messages.some(said => said.kind === 'checkpoint'));
    this.#resume.set(`import tunebook\n\nrun = tunebook.open_run(${pythonText(run.folder)}).resume()\ntunebook.watch(run)`);
    this.#drawFailure(run);
    this.#drawFacts(run);
  }

  /** Show what can be asked for; the focus goes from Pause to the Continue in its place, and back. */
  #offer(run: RunPicture, live: boolean): void {
    const before = document.activeElement;
    for (const [wish, ask] of this.#wishes) {
      const always = wish !== 'pause' && wish !== 'continue'; // of these two only one is offered
      toggle(ask, live && (always || accepts(run, wish)));
      ask.disabled = !accepts(run, wish);
    }
    const [pause, go] = [this.#wishes.get('pause'), this.#wishes.get('continue')];
    const other = before === pause ? go : before === go ? pause : undefined;
    if (before instanceof HTMLElement && before.hidden && !other?.hidden) {
      other?.focus();
    }
  }

  #progress(run: RunPicture, live: boolean): string {
    const trans = this.#trans;
    const words = [
      run.total ? trans.__('step %1 of %2', count(run.step), count(run.total)) : '',
      live && run.eta !== null ? trans.__('%1 left', duration(run.eta)) : '',
      !live && run.seconds ? trans.__('took %1', duration(run.seconds)) : '',
      run.device
    ];
    return words.filter(Boolean).join(' · ');
  }

  #drawFailure(run: RunPicture): void {
    const failed = run.state === 'failed' && run.error.what ? JSON.stringify(run.error) : '';
    if (failed !== this.#failed) {
      this.#failed = failed;
      this.#failure.replaceChildren(...(failed ? [threeParts(run.error)] : []));
    }
  }

  #drawFacts(run: RunPicture): void {
    const trans = this.#trans;
    const number = (value: number | null, words: (value: number) => string): string => (value === null ? '–' : words(value));
    const facts: [string, string][] = [
      [trans.__('First loss'), number(run.first_loss, figure)],
      [trans.__('Last loss'), number(run.last_loss, figure)],
      [trans.__('Learning rate'), number(run.learning_rate, figure)],
      [trans.__('Tokens a second'), number(run.tokens_per_second, count)],
      [trans.__('Peak memory'), run.peak ? bytes(run.peak) : '–'],
      ...(run.gpu_busy ? [[trans.__('GPU busy'), run.gpu_busy] as [string, string]] : [])
    ];
    toggle(this.#facts, run.last_loss !== null);
    this.#facts.replaceChildren(...facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
  }
}

/** A text as a Python literal: JSON's escapes are Python's too. */
function pythonText(text: string): string {
  return JSON.stringify(text);
}
