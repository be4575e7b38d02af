/** The guide's head: title and one line for each step; a click goes there. */

import { h, setText } from '../ui/dom.ts';
import { Cleanup, follow, type PanelState, type RenderProps } from '../ui/model.ts';

interface Step {
  number: number;
  heading: string;
  summary: string;
}

interface GuideState extends PanelState {
  steps: Step[];
}

function render({ model, el }: RenderProps<GuideState>): () => void {
  const cleanup = new Cleanup();
  const list = h('ol', { class: 'tb-steps' });
  const lines = new Map<number, HTMLElement>();
  for (const step of model.get('steps')) {
    const line = h('span', { class: 'tb-step-summary' });
    const link = h(
      'button',
      { type: 'button', class: 'tb-step' },
      h('span', { class: 'tb-number', 'aria-hidden': 'true' }, String(step.number)),
      h('span', { class: 'tb-step-heading' }, step.heading),
      line
    );
    link.addEventListener('click', () => goTo(link, step.number));
    lines.set(step.number, line);
    list.append(h('li', {}, link));
  }
  const head = h(
    'div',
    { class: 'tunebook-panel tb-overview', 'data-panel': 'guide', 'data-lm-suppress-shortcuts': 'true' },
    h('h2', {}, model.get('heading')),
    h('p', { class: 'tb-lead' }, model.get('lead')),
    h('nav', { 'aria-label': 'Steps' }, list)
  );
  const draw = (): void => {
    for (const step of model.get('steps')) {
      const line = lines.get(step.number);
      if (line) {
        setText(line, step.summary);
        line.title = step.summary;
      }
    }
  };
  follow(model, ['steps'], draw, cleanup);
  el.append(head);
  cleanup.add(() => head.remove());
  return cleanup.run;
}

function goTo(from: HTMLElement, number: number): void {
  const guide = from.closest('.tunebook-guide') ?? document;
  const panel = guide.querySelector<HTMLElement>(`.tunebook-panel[data-number="${number}"]`);
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  panel?.scrollIntoView({ behavior: calm ? 'auto' : 'smooth', block: 'start' });
  panel?.querySelector<HTMLElement>('.tb-fold')?.focus({ preventScroll: true });
}

export default { render };
