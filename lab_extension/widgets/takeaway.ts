/** The take-away panel: formats, folder, Save, and how to load what was written. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { codeBlock, definePanel } from '../ui/frame.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../ui/model.ts';

interface Written {
  path: string;
  size: string;
  kind: string;
  code: string;
}

interface TakeAwayState extends PanelState {
  folder: string;
  ready: boolean;
  files: Written[];
}

export default definePanel<TakeAwayState>('takeaway', ({ model, body, cleanup }) => {
  const id = freshId('folder');
  const folder = h('input', { type: 'text', id, class: 'tb-input', placeholder: "inside the run's folder", autocomplete: 'off', spellcheck: 'false' });
  const save = button('Save', () => model.send({ type: 'save', folder: folder.value }), { class: 'tb-button tb-primary', 'data-do': 'save' });
  const draw = (): void => {
    if (document.activeElement !== folder) {
      folder.value = model.get('folder');
    }
    save.disabled = Boolean(model.get('busy'));
    setText(save, model.get('busy') ? 'Saving …' : 'Save');
  };
  follow(model, ['folder', 'busy'], draw, cleanup);
  const where = h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: id }, 'Folder'), h('div', { class: 'tb-control' }, folder, save));
  body.append(form(model, cleanup, { groups: false }), where, files(model, cleanup));
});

function files(model: AnyModel<TakeAwayState>, cleanup: Cleanup): HTMLElement {
  const list = h('ul', { class: 'tb-files', 'aria-label': 'What was written' });
  const draw = (): void => {
    const items = model.get('files').map(file =>
      h(
        'li',
        { class: 'tb-file' },
        h('div', { class: 'tb-file-head' }, h('strong', {}, file.kind), h('span', { class: 'tb-muted' }, file.size)),
        h('p', { class: 'tb-path' }, file.path),
        codeBlock('Load it again', file.code).box
      )
    );
    list.replaceChildren(...items);
    toggle(list, items.length > 0);
  };
  follow(model, ['files'], draw, cleanup);
  return list;
}
