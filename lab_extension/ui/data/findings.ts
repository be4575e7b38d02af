/** What the checks found, and the fixes: looked at first, then applied, saved or taken back. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { count } from '../format.ts';
import { follow, type Cleanup } from '../model.ts';
import { shown } from '../visible.ts';
import type { Finding, FixPreview, Model } from './state.ts';

export function findings(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('ul', { class: 'tb-findings', 'aria-label': 'What the checks found' });
  let previewed: string | undefined;
  const draw = (): void => {
    const preview = model.get('fix_preview');
    const held = list.contains(document.activeElement);
    list.replaceChildren(...model.get('findings').map(item => finding(model, item, preview)));
    toggle(list, list.childElementCount > 0);
    if (held && preview.fix !== previewed) {
      const target = preview.fix ? '.tb-preview .tb-button:not(:disabled)' : `[data-fix="${previewed}"]`;
      list.querySelector<HTMLElement>(target)?.focus();
    }
    previewed = preview.fix;
  };
  follow(model, ['findings', 'fix_preview'], draw, cleanup);
  return h('div', { class: 'tb-checks' }, applied(model, cleanup), list);
}

function finding(model: Model, item: Finding, preview: FixPreview): HTMLElement {
  const places = item.examples.slice(0, 3).map(row => button(`row ${row + 1}`, () => model.send({ type: 'row', row }), { class: 'tb-link' }));
  if (item.listed && item.count > 1) {
    places.push(button(`list all ${count(item.count)}`, () => model.send({ type: 'search', text: '', only: item.code }), { class: 'tb-link' }));
  }
  const { fix } = item;
  const asked = fix !== null && preview.fix === fix;
  const mend = fix && !asked ? button('Fix …', () => model.send({ type: 'preview_fix', fix }), { class: 'tb-button tb-small', 'data-fix': fix }) : null;
  return h(
    'li',
    { class: `tb-finding tb-finding-${item.severity}`, 'data-code': item.code },
    h('span', { class: 'tb-finding-kind' }, item.severity),
    h('div', {}, h('p', { dir: 'auto' }, ...shown(item.title)), h('p', { class: 'tb-muted' }, item.do, ' ', ...places.flatMap(place => [place, ' ']))),
    mend,
    asked ? previewBox(model, preview) : null
  );
}

function previewBox(model: Model, preview: FixPreview): HTMLElement {
  const { row, where, before = '', after, words = '', able } = preview;
  const example = h('div', { class: 'tb-change' });
  if (row !== undefined) {
    example.append(
      h('p', { class: 'tb-muted' }, `Row ${count(row + 1)}${where ? `, ${where}` : ''}`),
      side('Before', before, 'tb-removed'),
      after == null ? side('After', 'left out', '') : side('After', after, 'tb-added')
    );
  }
  const apply = button('Apply', () => model.send({ type: 'apply_fix' }), { class: 'tb-button tb-primary', 'data-do': 'apply-fix', disabled: !able });
  const cancel = button('Cancel', () => model.send({ type: 'drop_preview' }));
  return h('div', { class: 'tb-preview', role: 'group', 'aria-label': 'What the fix would change' }, h('p', {}, ...shown(words)), example, h('div', { class: 'tb-buttons' }, apply, cancel));
}

function side(title: string, text: string, kind: string): HTMLElement {
  return h('p', {}, h('span', { class: 'tb-role' }, title), h('span', { class: `tb-excerpt ${kind}`, dir: 'auto' }, ...shown(text)));
}

/** The fixes that were applied, with the way back and the way into a file. */
function applied(model: Model, cleanup: Cleanup): HTMLElement {
  const words = h('p');
  const undo = button('Undo', () => model.send({ type: 'undo_fix' }), { 'data-do': 'undo-fix' });
  const id = freshId('file');
  const path = h('input', { type: 'text', id, class: 'tb-input', spellcheck: 'false', autocomplete: 'off' });
  const save = button('Save', () => model.send({ type: 'save_fixed', path: path.value }), { 'data-do': 'save-fixed' });
  const file = h('div', { class: 'tb-inline' }, h('label', { class: 'tb-label', for: id }, 'To a new file'), path, save);
  const box = h('div', { class: 'tb-applied', role: 'status' }, h('div', { class: 'tb-applied-words' }, words, undo), file);
  let before = 0;
  const draw = (): void => {
    const fixes = model.get('fixes');
    const saved = model.get('saved');
    const listed = fixes.map(item => item.applied).join(' ');
    const where = saved ? `The fixed rows are in ${saved}, which is read now.` : 'The fixed rows are in memory, and are what is trained on; your data stays as it is.';
    toggle(box, fixes.length > 0);
    setText(words, fixes.length ? `${listed} ${where}` : '');
    toggle(file, !saved);
    if (document.activeElement !== path) {
      path.value = model.get('fix_file');
    }
    if (fixes.length > before && document.activeElement === document.body) {
      undo.focus({ preventScroll: true }); // the button that was pressed is gone
    }
    before = fixes.length;
  };
  follow(model, ['fixes', 'fix_file', 'saved'], draw, cleanup);
  return box;
}
