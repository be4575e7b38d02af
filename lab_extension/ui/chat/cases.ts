/** Test cases: save the conversation as one, ask them all again, see before and now. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { follow, type Cleanup } from '../model.ts';
import type { CaseRow, ChatModel } from './state.ts';

const MATCHES: readonly (readonly [CaseRow['match'], string])[] = [
  ['contains', 'The answer must contain'],
  ['exact', 'The answer must be exactly'],
  ['latex', 'The answer must be the formula'],
  ['free', 'Only show me what changes']
];

const WANTED = { contains: 'contains', exact: 'exactly', latex: 'the formula' } as const;

/** The fold with the form and the table. */
export function testCases(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const title = h('span');
  const table = h('div', { class: 'tb-cases', role: 'list', 'aria-label': 'Test cases' });
  const run = button('Ask all again', () => model.send({ type: 'check_cases' }), { class: 'tb-button', 'data-do': 'check-cases' });
  const said = h('span', { class: 'tb-muted', role: 'status', 'data-cases': '' });
  const none = h('p', { class: 'tb-muted' }, 'A saved conversation is asked again after the next training, and shows what became better or worse.');
  const draw = (): void => {
    const cases = model.get('cases');
    const { done, total } = model.get('checking');
    setText(title, cases.length ? `Test cases (${cases.length})` : 'Test cases');
    table.replaceChildren(...cases.map(item => caseElement(item, model)));
    for (const part of [table, run]) {
      toggle(part, cases.length > 0);
    }
    toggle(none, cases.length === 0);
    run.disabled = model.get('answering') || !model.get('ready');
    setText(said, total === undefined ? model.get('cases_summary') : `${done ?? 0} of ${total} asked …`);
  };
  follow(model, ['cases', 'cases_summary', 'checking', 'answering', 'ready'], draw, cleanup);
  return h(
    'details',
    { class: 'tb-case-fold' },
    h('summary', {}, title),
    h('div', { class: 'tb-case-body' }, none, saver(model, cleanup), table, h('div', { class: 'tb-case-run' }, run, said))
  );
}

function saver(model: ChatModel, cleanup: Cleanup): HTMLElement {
  const [matchId, expectedId] = [freshId('match'), freshId('expected')];
  const match = h('select', { id: matchId, class: 'tb-input' }, ...MATCHES.map(([value, title]) => h('option', { value }, title)));
  const expected = h('input', { id: expectedId, type: 'text', class: 'tb-input', autocomplete: 'off', dir: 'auto' });
  const words = h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: expectedId }, 'Text'), expected);
  const save = button('Save this conversation', () => {
    model.send({ type: 'save_case', match: match.value, expected: expected.value });
  }, { class: 'tb-button', 'data-do': 'save-case' });
  match.addEventListener('change', () => toggle(words, match.value !== 'free'));
  let known = model.get('cases').length;
  const draw = (): void => {
    const count = model.get('cases').length;
    if (count > known) {
      expected.value = ''; // it was saved; until then what was typed stays
    }
    known = count;
    save.disabled = model.get('turns').length === 0 || model.get('answering');
  };
  follow(model, ['cases', 'turns', 'answering'], draw, cleanup);
  const kind = h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: matchId }, 'What is a good answer?'), h('div', { class: 'tb-control tb-select' }, match));
  return h('div', { class: 'tb-case-form' }, kind, words, save);
}

function caseElement(item: CaseRow, model: ChatModel): HTMLElement {
  const wanted = item.match === 'free' ? '' : `${WANTED[item.match]} “${item.expected}”`;
  const remove = button('×', () => model.send({ type: 'remove_case', id: item.id }), {
    class: 'tb-button tb-small tb-quiet tb-square',
    'aria-label': `Remove the test case: ${item.question}`
  });
  const answers = h('dl', { class: 'tb-case-answers' });
  for (const [name, text] of [['Before', item.before], ['Now', item.now]] as const) {
    if (text) {
      answers.append(h('dt', {}, name), h('dd', { dir: 'auto' }, text));
    }
  }
  return h(
    'div',
    { class: 'tb-case', role: 'listitem', 'data-verdict': item.verdict },
    h('span', { class: 'tb-verdict-word' }, item.verdict),
    h('div', {}, h('p', { class: 'tb-case-question', dir: 'auto' }, item.question), wanted && h('p', { class: 'tb-muted', dir: 'auto' }, wanted), answers),
    remove
  );
}
