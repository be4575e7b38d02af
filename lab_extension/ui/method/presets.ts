/** Starting points: what each would change is shown before it is taken, and it can be taken back. */

import { button, h, setText, toggle } from '../dom.ts';
import { bytes, duration } from '../format.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../model.ts';

export interface PresetState extends PanelState {
  presets: { key: string; title: string; about: string }[];
  preview: {
    key?: string;
    changes?: { path: string; title: string; before: string; after: string }[];
    total?: number;
    fits?: boolean;
    seconds?: number | null;
  };
  applied: { key?: string; title?: string };
}

export function presetsView(model: AnyModel<PresetState>, cleanup: Cleanup): HTMLElement {
  const buttons = model.get('presets').map(preset => {
    const node = button(preset.title, () => model.send({ type: 'preview', key: model.get('preview').key === preset.key ? '' : preset.key }), {
      'data-preset': preset.key,
      'aria-expanded': 'false',
      title: preset.about
    });
    return node;
  });
  const taken = h('span', { class: 'tb-muted', role: 'status' });
  const undo = button('Undo', () => model.send({ type: 'undo' }), { class: 'tb-link', 'data-do': 'undo' });
  const box = h('div', { class: 'tb-preview-box' });
  const node = h(
    'div',
    { class: 'tb-presets' },
    h('div', { class: 'tb-buttons', role: 'group', 'aria-label': 'Starting points' }, h('span', { class: 'tb-label', 'aria-hidden': 'true' }, 'Start from'), ...buttons, h('span', { class: 'tb-undo' }, taken, undo)),
    box
  );
  const draw = (): void => {
    const preview = model.get('preview');
    const applied = model.get('applied');
    buttons.forEach(one => one.setAttribute('aria-expanded', String(one.dataset['preset'] === preview.key)));
    setText(taken, applied.title ? `${applied.title} is set. ` : '');
    toggle(undo, Boolean(applied.title));
    toggle(box, Boolean(preview.key));
    box.replaceChildren(...(preview.key ? previewOf(model) : []));
  };
  follow(model, ['preview', 'applied'], draw, cleanup);
  return node;
}

function previewOf(model: AnyModel<PresetState>): Node[] {
  const preview = model.get('preview');
  const key = preview.key as string;
  const changes = preview.changes ?? [];
  const about = model.get('presets').find(preset => preset.key === key)?.about ?? '';
  const list = h(
    'ul',
    { class: 'tb-changes' },
    ...changes.map(change =>
      h(
        'li',
        { 'data-path': change.path },
        h('span', { class: 'tb-label' }, change.title),
        h('span', {}, h('s', {}, change.before), ' → ', h('strong', {}, change.after))
      )
    )
  );
  const cost = preview.total === undefined ? '' : `Needs ${bytes(preview.total)}${preview.fits ? '' : ', which does not fit'}${preview.seconds ? `; about ${duration(preview.seconds)}` : ''}.`;
  const apply = button('Set these', () => model.send({ type: 'apply', key }), { class: 'tb-button tb-primary', 'data-do': 'apply' });
  const leave = button(changes.length ? 'Leave as it is' : 'Close', () => model.send({ type: 'preview', key: '' }), { class: 'tb-button tb-quiet' });
  return [
    h('p', {}, about),
    changes.length ? list : h('p', { class: 'tb-muted' }, 'Everything is set so already.'),
    h('p', { class: 'tb-muted' }, cost),
    h('div', { class: 'tb-buttons' }, changes.length > 0 && apply, leave)
  ];
}
