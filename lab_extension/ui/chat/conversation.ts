/** The turns of the conversation, and what can be done with the last one. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { onEnter } from '../keys.ts';
import { follow, type Cleanup } from '../model.ts';
import { allTurns, type Answer, type ChatModel, type Turn } from './state.ts';
import { chanceLegend, probabilityView } from './tokens.ts';

const EMPTY = {
  ready: 'Ask something that the rows teach, then something that they do not: the two answers show what was learned.',
  waiting: 'Here you can talk to the model once it has been trained.'
};

/** The log of turns; what does not change is not drawn anew, so that reading is not disturbed. */
export function conversation(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const log = h('div', { class: 'tb-turns', role: 'log', 'aria-label': 'Conversation' });
  const empty = h('p', { class: 'tb-muted tb-empty' });
  const legend = chanceLegend();
  const tools = lastTurn(model, cleanup);
  const draw = (): void => {
    const turns = allTurns(model);
    setText(empty, model.get('ready') ? EMPTY.ready : EMPTY.waiting);
    toggle(empty, turns.length === 0);
    toggle(legend, model.get('probabilities') && turns.length > 0);
    drawTurns(log, turns, model.get('probabilities'));
  };
  follow(model, ['turns', 'writing', 'ready', 'probabilities'], draw, cleanup);
  return h('div', { class: 'tb-talk' }, empty, legend, log, tools);
}

function drawTurns(log: HTMLElement, turns: Turn[], shaded: boolean): void {
  while (log.childElementCount > turns.length) {
    log.lastElementChild?.remove();
  }
  turns.forEach((turn, at) => {
    const old = log.children[at] as HTMLElement | undefined;
    const key = `${turn.seed} ${turn.user}`;
    if (old?.dataset['key'] !== key || Boolean(old.querySelector('.tb-answer-base')) !== Boolean(turn.base)) {
      const fresh = turnElement(turn);
      fresh.dataset['key'] = key;
      if (old) {
        old.replaceWith(fresh);
      } else {
        log.append(fresh);
      }
    }
    for (const side of ['base', 'tuned'] as const) {
      const answer = turn[side];
      const box = log.children[at]?.querySelector<HTMLElement>(`.tb-answer-${side}`);
      if (answer && box) {
        drawAnswer(box, answer, shaded, side);
      }
    }
  });
}

function turnElement(turn: Turn): HTMLElement {
  const answers = h('div', { class: 'tb-answers' });
  if (turn.base) {
    answers.append(answerElement('Base', 'base'));
  }
  answers.append(answerElement('Tuned', 'tuned'));
  return h('div', { class: 'tb-turn' }, h('p', { class: 'tb-question', dir: 'auto' }, turn.user), answers);
}

function answerElement(title: string, side: string): HTMLElement {
  const text = h('div', { class: 'tb-answer-text' });
  const copy = button('Copy', () => void copyText(text.dataset['text'] ?? '', copy), {
    class: 'tb-button tb-small tb-quiet',
    'aria-label': `Copy the ${title.toLowerCase()} model's answer`
  });
  return h(
    'div',
    { class: `tb-answer tb-answer-${side}`, 'data-side': side },
    h('div', { class: 'tb-answer-head' }, h('span', { class: 'tb-side' }, title), h('span', { class: 'tb-answer-state tb-muted' }), copy),
    text
  );
}

const STATES: Record<Answer['state'], string> = { waiting: 'waiting …', writing: 'writing …', done: '', stopped: 'stopped' };

function drawAnswer(box: HTMLElement, answer: Answer, shaded: boolean, side: string): void {
  const text = box.querySelector<HTMLElement>('.tb-answer-text');
  const state = box.querySelector<HTMLElement>('.tb-answer-state');
  const copy = box.querySelector<HTMLElement>('.tb-button');
  box.dataset['state'] = answer.state;
  if (state) {
    setText(state, STATES[answer.state]);
  }
  if (copy) {
    toggle(copy, answer.text !== '' && answer.state !== 'writing');
  }
  const key = `${shaded} ${answer.tokens.length} ${answer.state} ${answer.text.length}`;
  if (!text || text.dataset['key'] === key) {
    return;
  }
  [text.dataset['key'], text.dataset['text']] = [key, answer.text];
  const old = text.querySelector('p');
  if (!shaded && old) {
    setText(old, answer.text); // in place, so that a selection in a growing answer stays
  } else if (shaded) {
    text.replaceChildren(probabilityView(answer.tokens, `Tokens of the ${side} model's answer`));
  } else {
    text.replaceChildren(h('p', { dir: 'auto' }, answer.text));
  }
}

/** Answer again, and ask something else instead. */
function lastTurn(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const id = freshId('edit');
  const input = h('textarea', { id, class: 'tb-input', rows: 2, dir: 'auto' });
  const editor = h('div', { class: 'tb-edit', hidden: true });
  const close = (): void => {
    toggle(editor, false);
    edit.focus();
  };
  const ask = (): void => {
    if (input.value.trim() && !model.get('answering')) {
      model.send({ type: 'edit', text: input.value });
      close();
    }
  };
  onEnter(input, ask);
  input.addEventListener('keydown', event => event.key === 'Escape' && close());
  const again = button('Answer again', () => model.send({ type: 'again' }), { class: 'tb-button tb-small tb-quiet', 'data-do': 'again' });
  const edit = button('Edit the question', () => {
    input.value = model.get('turns').at(-1)?.user ?? '';
    toggle(editor, true);
    input.focus();
  }, { class: 'tb-button tb-small tb-quiet', 'data-do': 'edit' });
  editor.append(
    h('label', { class: 'tb-label', for: id }, 'Ask this instead'),
    input,
    h('div', { class: 'tb-buttons' }, button('Ask', ask, { class: 'tb-button', 'data-do': 'ask-instead' }), button('Cancel', close, { class: 'tb-button tb-quiet' }))
  );
  const clear = button('New conversation', () => model.send({ type: 'clear' }), { class: 'tb-button tb-small tb-quiet', 'data-do': 'clear' });
  const tools = h('div', { class: 'tb-turn-tools' }, again, edit, clear);
  const draw = (): void => {
    const idle = !model.get('answering');
    const some = model.get('turns').length > 0;
    toggle(tools, idle && some);
    if (!idle || !some) {
      toggle(editor, false);
    }
  };
  follow(model, ['answering', 'turns'], draw, cleanup);
  return h('div', {}, tools, editor);
}

async function copyText(text: string, from: HTMLButtonElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = 'Copied';
  } catch {
    from.textContent = 'Not allowed here';
  }
  window.setTimeout(() => (from.textContent = 'Copy'), 1500);
}
