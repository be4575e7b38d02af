/** The try panel: one question, the tuned and the base model side by side. */

import { testCases } from '../ui/chat/cases.ts';
import { conversation } from '../ui/chat/conversation.ts';
import type { ChatModel, ChatState } from '../ui/chat/state.ts';
import { button, debounce, freshId, h, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { definePanel } from '../ui/frame.ts';
import { onEnter } from '../ui/keys.ts';
import { follow, type Cleanup } from '../ui/model.ts';

export default definePanel<ChatState>('chat', ({ model, body, cleanup }) => {
  body.append(conversation(model, cleanup), composer(model, cleanup), switches(model, cleanup), settings(model, cleanup), testCases(model, cleanup));
});

function composer(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const id = freshId('question');
  const input = h('textarea', { id, class: 'tb-input', rows: 2, placeholder: 'Ask both models …', dir: 'auto' });
  const keep = debounce(() => {
    model.set('draft', input.value);
    model.save_changes();
  }, 400);
  const send = (): void => {
    if (!input.value.trim() || model.get('answering')) {
      return;
    }
    keep.flush();
    model.send({ type: 'send', text: input.value });
    if (model.get('ready')) {
      input.value = '';
    }
  };
  input.addEventListener('input', () => keep());
  onEnter(input, send);
  const ask = button('Send', send, { class: 'tb-button tb-primary', 'data-do': 'send' });
  const stop = button('Stop', () => model.send({ type: 'stop' }), { class: 'tb-button tb-danger', 'data-do': 'stop' });
  const draw = (): void => {
    const answering = model.get('answering');
    const moved = stop.ownerDocument.activeElement === (answering ? ask : stop);
    toggle(ask, !answering);
    toggle(stop, answering);
    if (moved) {
      (answering ? stop : ask).focus(); // the button that was pressed is gone: its place keeps the focus
    }
  };
  follow(model, ['answering'], draw, cleanup);
  follow(model, ['compare'], () => (input.placeholder = model.get('compare') ? 'Ask both models …' : 'Ask the tuned model …'), cleanup);
  const show = (): void => {
    if (input.ownerDocument.activeElement !== input) {
      input.value = model.get('draft');
    }
  };
  follow(model, ['draft'], show, cleanup);
  const hint = h('p', { class: 'tb-composer-hint tb-muted' }, 'Enter sends, Shift and Enter begin a new line.');
  return h('div', { class: 'tb-composer' }, h('label', { class: 'tb-hidden', for: id }, 'Your question'), input, h('div', { class: 'tb-buttons' }, ask, stop), hint);
}

function switches(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const one = (name: 'compare' | 'probabilities', title: string): HTMLElement => {
    const input = h('input', { type: 'checkbox', class: 'tb-check', id: freshId(name), 'data-switch': name });
    input.addEventListener('change', () => {
      model.set(name, input.checked);
      model.save_changes();
    });
    follow(model, [name], () => (input.checked = model.get(name)), cleanup);
    return h('div', { class: 'tb-inline' }, input, h('label', { class: 'tb-label', for: input.id }, title));
  };
  return h('div', { class: 'tb-switches' }, one('compare', 'Compare with the base model'), one('probabilities', 'Show how sure the model was'));
}

/** The system message and the sampling, folded: the usual ones suit a first try. */
function settings(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const id = freshId('system');
  const input = h('textarea', { id, class: 'tb-input', rows: 2, dir: 'auto', placeholder: 'None' });
  const keep = debounce(() => {
    model.set('system', input.value);
    model.save_changes();
  }, 300);
  onEnter(input);
  input.addEventListener('input', () => keep());
  input.addEventListener('change', () => keep.flush());
  const show = (): void => {
    if (input.ownerDocument.activeElement !== input) {
      input.value = model.get('system');
    }
  };
  follow(model, ['system'], show, cleanup);
  const system = h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: id }, 'System message: what the model is told before you speak'), input);
  return h('details', { class: 'tb-settings' }, h('summary', {}, 'System message and sampling'), h('div', { class: 'tb-settings-body' }, system, form(model, cleanup, { groups: false })));
}
