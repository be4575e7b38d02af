/** The guide's head: each step in one line with how far it is, and the one to take now. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { Cleanup, follow, type PanelState, type RenderProps } from '../ui/model.ts';

interface Step {
  number: number;
  heading: string;
  summary: string;
  state: 'done' | 'open' | 'busy' | 'waiting' | 'problem';
  note: string;
}

interface GuideState extends PanelState {
  steps: Step[];
  next_step: number;
  hint: string;
}

const WORDS: Record<Step['state'], string> = { done: 'done', open: '', busy: 'going on', waiting: 'waiting', problem: 'needs you' };
const MARKS: Partial<Record<Step['state'], string>> = { done: '✓', problem: '!' };

function render({ model, el }: RenderProps<GuideState>): () => void {
  const cleanup = new Cleanup();
  const views = model.get('steps').map(step => new StepView(step));
  const hint = h('p', { class: 'tb-hint', role: 'status' });
  const go = button('', () => goTo(go, model.get('next_step')), { class: 'tb-button tb-primary', 'data-do': 'next-step' });
  const heading = freshId('heading');
  const head = h(
    'section',
    { class: 'tunebook-panel tb-overview', 'data-panel': 'guide', 'aria-labelledby': heading, 'data-lm-suppress-shortcuts': 'true' },
    h('h2', { id: heading }, model.get('heading')),
    h('p', { class: 'tb-lead' }, model.get('lead')),
    h('nav', { 'aria-label': 'Steps' }, h('ol', { class: 'tb-steps' }, ...views.map(view => view.node))),
    h('div', { class: 'tb-next' }, hint, go)
  );
  const draw = (): void => {
    const steps = model.get('steps');
    const next = model.get('next_step');
    views.forEach((view, at) => {
      const step = steps[at];
      if (step) {
        view.draw(step, step.number === next);
      }
    });
    const step = steps.find(item => item.number === next);
    setText(hint, model.get('hint'));
    setText(go, step ? `Go to ${step.heading}` : '');
    toggle(go, step !== undefined);
  };
  follow(model, ['steps', 'next_step', 'hint'], draw, cleanup);
  el.append(head);
  cleanup.add(() => head.remove());
  return cleanup.run;
}

class StepView {
  readonly node: HTMLElement;
  #link: HTMLElement;
  #mark = h('span', { class: 'tb-number', 'aria-hidden': 'true' });
  #line = h('span', { class: 'tb-step-summary' });
  #state = h('span', { class: 'tb-step-state' });

  constructor(step: Step) {
    const heading = h('span', { class: 'tb-step-heading' }, h('span', {}, step.heading), this.#state);
    this.#link = h('button', { type: 'button', class: 'tb-step' }, this.#mark, heading, this.#line);
    this.#link.addEventListener('click', () => goTo(this.#link, step.number));
    this.node = h('li', {}, this.#link);
  }

  draw(step: Step, next: boolean): void {
    setText(this.#mark, MARKS[step.state] ?? String(step.number));
    setText(this.#state, next && step.state === 'open' ? 'next' : step.note || WORDS[step.state]);
    setText(this.#line, step.summary);
    this.#line.title = step.summary;
    this.#link.dataset['state'] = step.state;
    if (next) {
      this.#link.setAttribute('aria-current', 'step');
    } else {
      this.#link.removeAttribute('aria-current');
    }
  }
}

/** Unfold the step and bring it into view, with the focus on its head. */
function goTo(from: HTMLElement, number: number): void {
  const guide = from.closest('.tunebook-guide') ?? document;
  const panel = guide.querySelector<HTMLElement>(`.tunebook-panel[data-number="${number}"]`);
  const fold = panel?.querySelector<HTMLElement>('.tb-fold');
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (fold?.getAttribute('aria-expanded') === 'false') {
    fold.click();
  }
  panel?.scrollIntoView({ behavior: calm ? 'auto' : 'smooth', block: 'start' });
  fold?.focus({ preventScroll: true });
}

export default { render };
