/** The take-away panel: formats and types, folder, Save, what was written, the upload to the hub. */

import { button, freshId, h, setText, toggle } from '../ui/dom.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type Cleanup } from '../ui/model.ts';
import { hub } from '../ui/takeaway/hub.ts';
import { quantizations } from '../ui/takeaway/quantizations.ts';
import { chosen, type TakeAwayModel, type TakeAwayState } from '../ui/takeaway/state.ts';
import { files } from '../ui/takeaway/written.ts';

export default definePanel<TakeAwayState>('takeaway', ({ model, body, cleanup }) => {
  body.append(formats(model, cleanup), quantizations(model, cleanup), saving(model, cleanup), progress(model, cleanup), files(model, cleanup), hub(model, cleanup));
});

/** One row for each format: what it is for and how large it will be. */
function formats(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const id = freshId('formats');
  const rows = h('div', { class: 'tb-take-formats', role: 'group', 'aria-labelledby': id });
  const inputs = new Map<string, HTMLInputElement>();
  const sizes = new Map<string, HTMLElement>();
  const send = (): void => {
    const value = [...inputs].filter(([, input]) => input.checked).map(([name]) => name);
    model.send({ type: 'set', path: 'export.formats', value });
  };
  for (const form of model.get('formats')) {
    const about = freshId('about');
    const input = h('input', { type: 'checkbox', class: 'tb-check', id: freshId('format'), 'data-format': form.name, 'aria-describedby': about });
    const size = h('span', { class: 'tb-take-size tb-muted' });
    input.addEventListener('change', send);
    inputs.set(form.name, input);
    sizes.set(form.name, size);
    rows.append(
      h('div', { class: 'tb-take-format' }, input, h('label', { class: 'tb-take-title', for: input.id }, form.title), size, h('p', { class: 'tb-muted', id: about }, form.description))
    );
  }
  const draw = (): void => {
    const now = chosen(model, 'export.formats');
    for (const form of model.get('formats')) {
      const input = inputs.get(form.name);
      const size = sizes.get(form.name);
      if (input && size) {
        input.checked = now.includes(form.name);
        setText(size, form.size);
      }
    }
  };
  follow(model, ['formats', 'values'], draw, cleanup);
  return h('div', {}, h('p', { class: 'tb-label', id }, 'What to save'), rows);
}

function saving(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const id = freshId('folder');
  const folder = h('input', { type: 'text', id, class: 'tb-input', placeholder: "inside the run's folder", autocomplete: 'off', spellcheck: 'false' });
  const save = button('Save', () => model.send({ type: 'save', folder: folder.value }), { class: 'tb-button tb-primary', 'data-do': 'save' });
  const check = h('input', { type: 'checkbox', class: 'tb-check', id: freshId('check') });
  check.addEventListener('change', () => {
    model.set('check', check.checked);
    model.save_changes();
  });
  const draw = (): void => {
    if (folder.ownerDocument.activeElement !== folder) {
      folder.value = model.get('folder');
    }
    check.checked = model.get('check');
    save.disabled = Boolean(model.get('working'));
  };
  follow(model, ['folder', 'working', 'check'], draw, cleanup);
  return h(
    'div',
    { class: 'tb-saving' },
    h('div', { class: 'tb-field' }, h('label', { class: 'tb-label', for: id }, 'Folder'), h('div', { class: 'tb-control' }, folder, save)),
    h('div', { class: 'tb-inline' }, check, h('label', { class: 'tb-label', for: check.id }, 'Read it again afterwards and compare it with the model'))
  );
}

/** What goes on, how far it is, and Stop. */
function progress(model: TakeAwayModel, cleanup: Cleanup): HTMLElement {
  const text = h('span', { id: freshId('progress') });
  const meter = h('progress', { class: 'tb-take-progress', 'aria-labelledby': text.id });
  const stop = button('Stop', () => model.send({ type: 'stop' }), { class: 'tb-button tb-small tb-danger', 'data-do': 'stop-saving' });
  const line = h('div', { class: 'tb-take-line' }, text, meter, stop);
  const draw = (): void => {
    const { text: said, done, total } = model.get('progress');
    setText(text, said ?? 'Working …');
    if (total) {
      meter.max = total;
      meter.value = done ?? 0;
    } else {
      meter.removeAttribute('value'); // it goes on, nobody knows how far
    }
    toggle(line, Boolean(model.get('working')));
    toggle(stop, model.get('working') !== 'check');
  };
  follow(model, ['progress', 'working'], draw, cleanup);
  return line;
}
