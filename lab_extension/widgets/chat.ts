/** The try panel: one question, the tuned and the base model side by side. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../ui/model.ts';

interface Answer {
  text: string;
  state: 'waiting' | 'writing' | 'done' | 'stopped';
}

interface Turn {
  user: string;
  tuned: Answer;
  base?: Answer;
}

interface ChatState extends PanelState {
  ready: boolean;
  answering: boolean;
  compare: boolean;
  max_new_tokens: number;
  temperature: number;
  turns: Turn[];
}

type Model = AnyModel<ChatState>;

export default definePanel<ChatState>('chat', ({ model, body, cleanup }) => {
  const log = h('div', { class: 'tb-turns', role: 'log', 'aria-label': 'Conversation' });
  const empty = h('p', { class: 'tb-muted tb-empty' });
  const draw = (): void => {
    const turns = model.get('turns');
    setText(empty, model.get('ready') ? 'Ask something that the rows teach.' : 'Here you can talk to the model once it has been trained.');
    toggle(empty, turns.length === 0);
    drawTurns(log, turns);
  };
  follow(model, ['turns', 'ready'], draw, cleanup);
  body.append(empty, log, composer(model, cleanup), sampling(model, cleanup));
});

/** Only what changed is drawn anew, so that a streaming answer does not disturb the ones before. */
function drawTurns(log: HTMLElement, turns: Turn[]): void {
  while (log.childElementCount > turns.length) {
    log.lastElementChild?.remove();
  }
  turns.forEach((turn, at) => {
    const key = JSON.stringify(turn);
    const old = log.children[at] as HTMLElement | undefined;
    if (old?.dataset['key'] !== key) {
      const fresh = turnElement(turn);
      fresh.dataset['key'] = key;
      if (old) {
        old.replaceWith(fresh);
      } else {
        log.append(fresh);
      }
    }
  });
}

function turnElement(turn: Turn): HTMLElement {
  const answers = h('div', { class: 'tb-answers' });
  if (turn.base) {
    answers.append(answerElement('Base', 'base', turn.base));
  }
  answers.append(answerElement('Tuned', 'tuned', turn.tuned));
  return h('div', { class: 'tb-turn' }, h('p', { class: 'tb-question' }, turn.user), answers);
}

function answerElement(title: string, side: string, answer: Answer): HTMLElement {
  const state = answer.state === 'done' ? '' : answer.state === 'waiting' ? 'waiting …' : answer.state === 'writing' ? 'writing …' : 'stopped';
  return h(
    'div',
    { class: `tb-answer tb-answer-${side}`, 'data-side': side, 'data-state': answer.state },
    h('div', { class: 'tb-answer-head' }, h('span', {}, title), h('span', { class: 'tb-muted' }, state)),
    h('p', {}, answer.text)
  );
}

function composer(model: Model, cleanup: Cleanup): HTMLElement {
  const id = freshId('question');
  const input = h('textarea', { id, class: 'tb-input', rows: 2, placeholder: 'Ask both models …' });
  const send = (): void => {
    if (input.value.trim() && !model.get('answering')) {
      model.send({ type: 'send', text: input.value });
      if (model.get('ready')) {
        input.value = '';
      }
    }
  };
  input.addEventListener('keydown', event => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  const sendButton = button('Send', send, { class: 'tb-button tb-primary', 'data-do': 'send' });
  const stop = button('Stop', () => model.send({ type: 'stop' }), { class: 'tb-button tb-danger', 'data-do': 'stop' });
  const clear = button('Clear', () => model.send({ type: 'clear' }), { class: 'tb-button tb-quiet', 'data-do': 'clear' });
  const draw = (): void => {
    toggle(sendButton, !model.get('answering'));
    toggle(stop, model.get('answering'));
    toggle(clear, model.get('turns').length > 0);
  };
  follow(model, ['answering', 'turns'], draw, cleanup);
  const label = h('label', { class: 'tb-hidden', for: id }, 'Your question');
  return h('div', { class: 'tb-composer' }, label, input, h('div', { class: 'tb-buttons' }, sendButton, stop, clear));
}

function sampling(model: Model, cleanup: Cleanup): HTMLElement {
  const number = (title: string, name: 'max_new_tokens' | 'temperature'): HTMLElement => {
    const id = freshId(name);
    const input = h('input', { type: 'text', id, class: 'tb-input tb-short', inputmode: 'decimal' });
    input.addEventListener('change', () => {
      const value = Number(input.value);
      if (Number.isFinite(value)) {
        model.send({ type: 'sampling', [name]: value });
      }
      input.value = String(model.get(name));
    });
    follow(model, [name], () => (input.value = String(model.get(name))), cleanup);
    return h('div', { class: 'tb-inline' }, h('label', { class: 'tb-label', for: id }, title), input);
  };
  const compare = h('input', { type: 'checkbox', class: 'tb-check', id: freshId('compare') });
  compare.addEventListener('change', () => model.send({ type: 'sampling', compare: compare.checked }));
  follow(model, ['compare'], () => (compare.checked = model.get('compare')), cleanup);
  const both = h('div', { class: 'tb-inline' }, compare, h('label', { class: 'tb-label', for: compare.id }, 'Compare with the base model'));
  return h('div', { class: 'tb-sampling' }, both, number('Most tokens', 'max_new_tokens'), number('Temperature', 'temperature'));
}
