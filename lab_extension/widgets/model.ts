/** The model panel: catalogue, this disk or any id, each with a verdict; up to three side by side. */

import { SIZES, SORTS, contextText, shownRows, type Row, type View } from '../ui/catalogue.ts';
import { button, debounce, freshId, h, setText, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { bytes, compact, stepTime } from '../ui/format.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type AnyModel, type Cleanup, type PanelState } from '../ui/model.ts';

interface ModelState extends PanelState {
  models: Row[];
  hardware: string;
  about: { name?: string; catalogue?: string };
  in_sight: boolean;
  compared: string[];
  view: View;
}

type Model = AnyModel<ModelState>;

const VERDICTS = { '': '…', fits: 'fits', tight: 'tight', no: 'too large' };
const SOURCES = { catalogue: '', folder: 'folder here', cache: 'downloaded', typed: 'from the hub' };
const MOST_COMPARED = 3;

export default definePanel<ModelState>('model', ({ model, body, cleanup }) => {
  const hardware = h('p', { class: 'tb-muted tb-machine' });
  const list = h('div', { class: 'tb-models', role: 'radiogroup', 'aria-label': 'Models' });
  const none = h('p', { class: 'tb-muted', role: 'status' });
  const rows = new Map<string, RowView>();
  const group = freshId('models');
  const drawHardware = (): void =>
    setText(hardware, model.get('hardware') ? `On this machine: ${model.get('hardware')}.` : 'Looking at this machine …');
  const draw = (): void => {
    const all = model.get('models');
    const shown = shownRows(all, model.get('view'));
    const chosen = chosenName(model);
    const elements = shown.map(row => {
      const view = rows.get(row.name) ?? new RowView(model, row, group);
      rows.set(row.name, view);
      view.draw(row, row.name === chosen, model.get('compared'));
      return view.node;
    });
    if (elements.length !== list.children.length || elements.some((element, at) => list.children[at] !== element)) {
      list.replaceChildren(...elements);
    }
    const total = `${shown.length} of ${all.length} models`;
    setText(none, shown.length ? (shown.length < all.length ? total : '') : 'No model here matches; any Hugging Face id can be typed above.');
    toggle(none, Boolean(none.textContent));
  };
  follow(model, ['hardware'], drawHardware, cleanup);
  body.append(
    freeField(model, cleanup),
    filters(model, cleanup),
    hardware,
    list,
    none,
    comparison(model, cleanup),
    form(model, cleanup, { groups: false, fold: 'Settings of the model' })
  );
  follow(model, ['models', 'about', 'values', 'compared', 'view'], draw, cleanup);
  tellSight(model, list, cleanup);
});

/** Tell the kernel whether the list is looked at: verdicts that nobody sees need not follow each key. */
function tellSight(model: Model, list: HTMLElement, cleanup: Cleanup): void {
  const observer = new IntersectionObserver(entries => {
    const seen = entries[entries.length - 1]?.isIntersecting ?? true;
    if (seen !== model.get('in_sight')) {
      model.set('in_sight', seen);
      model.save_changes();
    }
  });
  observer.observe(list);
  cleanup.add(() => observer.disconnect());
}

function chosenName(model: Model): string {
  return model.get('about').catalogue ?? String(model.get('values')['model.name'] ?? '');
}

function freeField(model: Model, cleanup: Cleanup): HTMLElement {
  const id = freshId('name');
  const input = h('input', { type: 'text', id, class: 'tb-input', autocomplete: 'off', spellcheck: 'false', dir: 'auto' });
  const use = (): void => model.send({ type: 'choose', name: input.value });
  input.addEventListener('keydown', event => event.key === 'Enter' && use());
  const draw = (): void => {
    if (document.activeElement !== input) {
      input.value = String(model.get('values')['model.name'] ?? '');
    }
  };
  follow(model, ['values'], draw, cleanup);
  return h(
    'div',
    { class: 'tb-field', 'data-field': 'model.name' },
    h('label', { class: 'tb-label', for: id }, 'Name, Hugging Face id or folder'),
    h('div', { class: 'tb-control' }, input, button('Use', use))
  );
}

function filters(model: Model, cleanup: Cleanup): HTMLElement {
  const change = (part: View): void => {
    model.set('view', { ...model.get('view'), ...part });
    model.save_changes();
  };
  const search = h('input', { type: 'search', class: 'tb-input', placeholder: 'Search', 'aria-label': 'Search the models' });
  const later = debounce((query: string) => change({ query }), 80);
  search.addEventListener('input', () => later(search.value));
  const choice = (name: 'family' | 'size' | 'modality' | 'sort', label: string): HTMLSelectElement => {
    const select = h('select', { class: 'tb-input', 'aria-label': label, 'data-filter': name });
    select.addEventListener('change', () => change({ [name]: select.value }));
    return select;
  };
  const family = choice('family', 'Family');
  const size = choice('size', 'Size');
  const modality = choice('modality', 'Takes in');
  const sort = choice('sort', 'Order');
  options(size, [['', 'any size'], ...Object.entries(SIZES).map(([key, one]): [string, string] => [key, one.title])]);
  options(modality, [['', 'text or images'], ['image', 'takes images']]);
  options(sort, Object.entries(SORTS).map(([key, one]): [string, string] => [key, one.title]));
  const fits = h('input', { type: 'checkbox', class: 'tb-check', 'data-filter': 'fits' });
  fits.addEventListener('change', () => change({ fits: fits.checked }));
  const draw = (): void => {
    const view = model.get('view');
    const families = [...new Set(model.get('models').map(row => row.family))].filter(Boolean).sort();
    options(family, [['', 'any family'], ...families.map((name): [string, string] => [name, name])]);
    family.value = view.family ?? '';
    size.value = view.size ?? '';
    modality.value = view.modality ?? '';
    sort.value = view.sort ?? '';
    fits.checked = Boolean(view.fits);
    if (document.activeElement !== search) {
      search.value = view.query ?? '';
    }
  };
  follow(model, ['models', 'view'], draw, cleanup);
  return h('div', { class: 'tb-toolbar tb-filters', role: 'group', 'aria-label': 'Which models are listed' }, search, family, size, modality, sort, h('label', { class: 'tb-fits-only' }, fits, 'fits here'));
}

/** Set the options of a select, if they differ. */
function options(select: HTMLSelectElement, items: [string, string][]): void {
  if ([...select.options].map(option => option.value).join('\n') !== items.map(([value]) => value).join('\n')) {
    select.replaceChildren(...items.map(([value, title]) => h('option', { value }, title)));
  }
}

class RowView {
  readonly node: HTMLElement;
  #name: string;
  #input: HTMLInputElement;
  #compare: HTMLInputElement;
  #facts = h('span', { class: 'tb-model-facts' });
  #memory = h('span', { class: 'tb-memory' });
  #verdict = h('span', { class: 'tb-verdict' });
  #cure = h('span', { class: 'tb-cure' });
  #fix: HTMLButtonElement;

  constructor(model: Model, row: Row, group: string) {
    this.#name = row.name;
    this.#input = h('input', { type: 'radio', name: group, value: row.name, 'data-model': row.name });
    this.#input.addEventListener('change', () => model.send({ type: 'choose', name: row.name }));
    this.#compare = h('input', { type: 'checkbox', class: 'tb-check', 'aria-label': `Compare ${row.title}` });
    this.#compare.addEventListener('change', () => model.send({ type: 'compare', name: row.name, on: this.#compare.checked }));
    this.#fix = button('Do that', () => model.send({ type: 'make_fit', name: row.name }), { class: 'tb-link', 'aria-label': `Choose ${row.title} and make it fit` });
    const title = h('span', { class: 'tb-model-title', dir: 'auto' }, row.title);
    this.node = h(
      'div',
      { class: 'tb-model', 'data-model': row.name },
      h('label', { class: 'tb-model-choice' }, this.#input, title, this.#facts),
      h('span', { class: 'tb-cure-place' }, this.#cure, ' ', this.#fix),
      this.#memory,
      this.#verdict,
      h('label', { class: 'tb-model-compare', title: 'Compare side by side, up to three' }, this.#compare, h('span', { 'aria-hidden': 'true' }, 'compare'))
    );
  }

  draw(row: Row, chosen: boolean, compared: string[]): void {
    this.#input.checked = chosen;
    this.#compare.checked = compared.includes(this.#name);
    this.#compare.disabled = !this.#compare.checked && compared.length >= MOST_COMPARED;
    const facts = [
      row.parameters ? `${compact(row.parameters)} parameters` : '',
      row.context ? `${contextText(row.context)} context` : '',
      row.licence,
      row.modality.includes('image') ? 'text and images' : '',
      row.languages.length ? (row.languages.length > 3 ? `${row.languages.length} languages` : row.languages.join(', ')) : '',
      SOURCES[row.source]
    ];
    setText(this.#facts, facts.filter(Boolean).join(' · '));
    this.#verdict.className = `tb-verdict tb-${row.verdict || 'unknown'}`;
    setText(this.#verdict, row.why && !row.verdict ? 'cannot be planned' : VERDICTS[row.verdict]);
    setText(this.#memory, row.memory ? `from ${bytes(row.memory)}` : '');
    setText(this.#cure, row.why || row.cure);
    toggle(this.#fix, row.verdict === 'no' && Object.keys(row.change).length > 0);
  }
}

/** The models that were ticked, side by side. */
function comparison(model: Model, cleanup: Cleanup): HTMLElement {
  const node = h('div', { class: 'tb-comparison', role: 'region', 'aria-label': 'Models side by side', tabindex: 0 });
  const draw = (): void => {
    const rows = model.get('compared').flatMap(name => model.get('models').find(row => row.name === name) ?? []);
    toggle(node, rows.length > 0);
    node.replaceChildren(...(rows.length ? [comparisonTable(model, rows)] : []));
  };
  follow(model, ['compared', 'models'], draw, cleanup);
  return node;
}

function comparisonTable(model: Model, rows: Row[]): HTMLElement {
  const lines: [string, (row: Row) => string][] = [
    ['Here', row => (row.verdict === 'no' ? row.cure : VERDICTS[row.verdict])],
    ['Memory', row => (row.memory ? `from ${bytes(row.memory)}` : '')],
    ['Time of a step', row => (row.verdict && row.verdict !== 'no' ? stepTime(row.seconds) : '')],
    ['Parameters', row => compact(row.parameters)],
    ['Context', row => `${contextText(row.context)} tokens`],
    ['Licence', row => row.licence],
    ['Takes in', row => row.modality.join(', ')],
    ['Languages', row => row.languages.join(', ')],
    ['Template', row => row.template]
  ];
  const away = (row: Row): HTMLElement =>
    button('×', () => model.send({ type: 'compare', name: row.name, on: false }), { class: 'tb-away', 'aria-label': `Take ${row.title} out of the comparison` });
  const head = h('tr', {}, h('td'), ...rows.map(row => h('th', { scope: 'col', dir: 'auto' }, row.title, away(row))));
  const body = lines.map(([title, text]) => h('tr', {}, h('th', { scope: 'row' }, title), ...rows.map(row => h('td', {}, text(row) || '–'))));
  return h('table', {}, h('thead', {}, head), h('tbody', {}, ...body));
}
