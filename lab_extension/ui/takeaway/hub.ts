/**
 * The upload to the hub. A token goes to Python in one message and leaves the page: it is never
 * set as a trait, so that no saved notebook and no second tab has it.
 */

import { button, debounce, freshId, h, setText, toggle } from '../dom.ts';
import { follow, type Cleanup } from '../model.ts';
import type { TakeAwayModel } from './state.ts';

const KNOWN = {
  login: 'This machine is logged in to the hub; its token is used.',
  memory: 'The token that you typed is kept until the kernel ends.',
  '': ''
};
const TOKENS = 'https://huggingface.co/settings/tokens';

/** The fold with name, visibility, token and Upload. */
export function hub(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const repo = repoField(model, cleanup);
  const token = tokenField(model, cleanup);
  const which = whichField(model, cleanup);
  const send = (): void => {
    model.send({ type: 'upload', repo: repo.input.value, token: token.input.value, form: which.input.value });
    token.input.value = '';
  };
  const upload = button('Upload', send, { class: 'tb-button', 'data-do': 'upload' });
  const page = h('p', { class: 'tb-page', role: 'status' });
  const draw = (): void => {
    upload.disabled = Boolean(model.get('working'));
    const address = model.get('page');
    page.replaceChildren();
    if (/^https?:\/\//.test(address)) {
      page.append('Uploaded: ', h('a', { href: address, target: '_blank', rel: 'noopener noreferrer' }, address));
    }
  };
  follow(model, ['working', 'page'], draw, cleanup);
  return h(
    'details',
    { class: 'tb-hub' },
    h('summary', {}, 'Put it on the Hugging Face hub'),
    h('div', { class: 'tb-hub-body' }, which.node, repo.node, tick(model, 'private', 'Private: only you see it', cleanup), tick(model, 'replace', 'Replace another model that is there', cleanup), token.node, h('div', { class: 'tb-buttons' }, upload), page)
  );
}

/** Which of the saved formats goes up; asked only where there is a choice. */
function whichField(model: TakeAwayModel, cleanup: Cleanup): { node: HTMLElement; input: HTMLSelectElement } {
  const id = freshId('which');
  const input = h('select', { id, class: 'tb-input' });
  const node = h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: id }, 'What to upload'), h('div', { class: 'tb-control tb-select' }, input));
  const draw = (): void => {
    const files = model.get('files');
    const before = input.value;
    input.replaceChildren(...files.map(file => h('option', { value: file.form }, `${file.title}, ${file.size}`)));
    if (files.some(file => file.form === before)) {
      input.value = before;
    }
    toggle(node, files.length > 1);
  };
  follow(model, ['files'], draw, cleanup);
  return { node, input };
}

function repoField(model: TakeAwayModel, cleanup: Cleanup): { node: HTMLElement; input: HTMLInputElement } {
  const id = freshId('repo');
  const input = h('input', { type: 'text', id, class: 'tb-input', placeholder: 'owner/name', autocomplete: 'off', spellcheck: 'false' });
  const keep = debounce(() => {
    model.set('repo', input.value.trim());
    model.save_changes();
  }, 400);
  input.addEventListener('input', () => keep());
  const draw = (): void => {
    if (input.ownerDocument.activeElement !== input) {
      input.value = model.get('repo');
    }
  };
  follow(model, ['repo'], draw, cleanup);
  return { input, node: h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: id }, 'Repository'), input) };
}

function tick(model: TakeAwayModel, name: 'private' | 'replace', label: string, cleanup: Cleanup): HTMLElement {
  const input = h('input', { type: 'checkbox', class: 'tb-check', id: freshId(name) });
  input.addEventListener('change', () => {
    model.set(name, input.checked);
    model.save_changes();
  });
  follow(model, [name], () => (input.checked = model.get(name)), cleanup);
  return h('div', { class: 'tb-inline' }, input, h('label', { class: 'tb-label', for: input.id }, label));
}

function tokenField(model: TakeAwayModel, cleanup: Cleanup): { node: HTMLElement; input: HTMLInputElement } {
  const [id, about] = [freshId('token'), freshId('about')];
  const input = h('input', { type: 'password', id, class: 'tb-input', autocomplete: 'off', spellcheck: 'false', 'aria-describedby': about, 'data-token': '' });
  const said = h('p', { class: 'tb-muted', id: about });
  const forget = button('Forget it', () => model.send({ type: 'forget' }), { class: 'tb-link' });
  const draw = (): void => {
    const from = model.get('token_from');
    said.replaceChildren();
    if (from) {
      said.append(KNOWN[from]);
    } else {
      said.append('With the right to write, from ', h('a', { href: TOKENS, target: '_blank', rel: 'noopener noreferrer' }, 'huggingface.co/settings/tokens'), '. It is never saved in the notebook.');
    }
    toggle(forget, from === 'memory');
    setText(label, from ? 'Another token, if you like' : 'Token');
  };
  const label = h('label', { class: 'tb-label', for: id }, 'Token');
  follow(model, ['token_from'], draw, cleanup);
  return { input, node: h('div', { class: 'tb-field' }, label, input, h('div', { class: 'tb-token-note' }, said, forget)) };
}
