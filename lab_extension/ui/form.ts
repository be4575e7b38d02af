/** A form drawn from the recipe's own fields: label, control, unit, help on demand, message. */

import { debounce, freshId, h, setText, throttle, toggle } from './dom.ts';
import { follow, type AnyModel, type Cleanup, type FieldInfo, type PanelState, type Refused } from './model.ts';

interface Control {
  node: HTMLElement;
  /** Show a value of the recipe, or what was typed and refused. */
  show: (value: unknown) => void;
  focusable: HTMLElement;
}

type Send = (value: unknown) => void;

export interface FormOptions {
  groups?: boolean;
  fold?: string;
  /** Paths that the panel draws elsewhere. */
  without?: string[];
  /** By the title of a group: what stands below its fields. */
  below?: Record<string, HTMLElement>;
  /** By path: what stands in the place of the field's own control. */
  instead?: Record<string, HTMLElement>;
}

/** All fields of the panel, grouped as the recipe groups them, the advanced ones folded. */
export function form<T extends PanelState>(
  model: AnyModel<T>,
  cleanup: Cleanup,
  options: FormOptions = {}
): HTMLElement {
  const base = model as unknown as AnyModel<PanelState>;
  const fields = base.get('fields').filter(field => !options.without?.includes(field.path));
  const node = h('div', { class: 'tb-form' });
  const drawn = new Map<string, FieldView>();
  for (const group of new Set(fields.map(field => field.group))) {
    const mine = fields.filter(field => field.group === group);
    const box = h('fieldset', { class: 'tb-group' });
    if (options.groups !== false) {
      box.append(h('legend', {}, group));
    }
    box.append(grid(base, mine.filter(field => !field.advanced), drawn));
    const below = options.below?.[group];
    if (below) {
      box.append(below);
    }
    const advanced = mine.filter(field => field.advanced);
    if (advanced.length) {
      box.append(h('details', { class: 'tb-advanced' }, h('summary', {}, 'More'), grid(base, advanced, drawn)));
    }
    node.append(box);
  }
  for (const [path, picture] of Object.entries(options.instead ?? {})) {
    drawn.get(path)?.replaceControl(picture);
  }
  const draw = (): void => {
    const values = base.get('values');
    const invalid = base.get('invalid');
    for (const [path, view] of drawn) {
      view.draw(values[path], invalid[path]);
    }
  };
  follow(base, ['values', 'invalid'], draw, cleanup);
  if (options.fold) {
    return h('details', { class: 'tb-fold-form' }, h('summary', {}, options.fold), node);
  }
  return node;
}

function grid(model: AnyModel<PanelState>, fields: FieldInfo[], drawn: Map<string, FieldView>): HTMLElement {
  const node = h('div', { class: 'tb-grid' });
  for (const field of fields) {
    const view = new FieldView(field, value => model.send({ type: 'set', path: field.path, value }));
    drawn.set(field.path, view);
    node.append(view.node);
  }
  return node;
}

/** One field: the control with its label, help and message. */
class FieldView {
  readonly node: HTMLElement;
  #control: Control;
  #message: HTMLElement;

  constructor(field: FieldInfo, send: Send) {
    const id = freshId('field');
    this.#message = h('p', { class: 'tb-message', id: `${id}-message`, role: 'status' });
    this.#control = makeControl(field, id, send);
    const { info, help } = aboutField(field, id);
    const label =
      field.type === 'list' || isSegmented(field)
        ? h('span', { class: 'tb-label', id: `${id}-label` }, field.title)
        : h('label', { class: 'tb-label', for: id }, field.title);
    this.node = h(
      'div',
      { class: `tb-field tb-field-${field.type}`, 'data-field': field.path },
      h('div', { class: 'tb-labels' }, label, info),
      this.#control.node,
      this.#message,
      help
    );
  }

  /** Put a picture that does the same beside the control, of which only one is to be shown. */
  replaceControl(picture: HTMLElement): void {
    this.#control.node.classList.add('tb-instead');
    this.#control.node.after(picture);
  }

  draw(value: unknown, refused: Refused | undefined): void {
    const focused = this.#control.node.contains(this.#control.node.ownerDocument.activeElement);
    const typing = focused && this.#control.focusable instanceof HTMLInputElement && this.#control.focusable.type === 'text';
    if (!typing) {
      this.#control.show(refused ? refused.typed : value);
    }
    setText(this.#message, refused?.message ?? '');
    this.node.classList.toggle('tb-refused', Boolean(refused));
    if (refused) {
      this.#control.focusable.setAttribute('aria-invalid', 'true');
      this.#control.focusable.setAttribute('aria-describedby', this.#message.id);
    } else {
      this.#control.focusable.removeAttribute('aria-invalid');
      this.#control.focusable.removeAttribute('aria-describedby');
    }
  }
}

/** The teaching sentence of a field, and the button that shows it. */
export function aboutField(field: FieldInfo, id: string): { info: HTMLButtonElement; help: HTMLElement } {
  const help = helpText(field, `${id}-help`);
  const info = h('button', {
    type: 'button',
    class: 'tb-info',
    'aria-label': `About ${field.title}`,
    'aria-expanded': 'false',
    'aria-controls': help.id,
    title: field.description
  }, 'i');
  info.addEventListener('click', () => {
    toggle(help, help.hidden);
    info.setAttribute('aria-expanded', String(!help.hidden));
  });
  return { info, help };
}

function helpText(field: FieldInfo, id: string): HTMLElement {
  const help = h('p', { class: 'tb-help', id, hidden: true }, field.description, ' ');
  const range = rangeText(field);
  if (range) {
    help.append(h('span', { class: 'tb-range' }, range), ' ');
  }
  if (field.link && /^https:\/\//.test(field.link)) {
    help.append(h('a', { href: field.link, target: '_blank', rel: 'noopener noreferrer' }, 'Read more'));
  }
  return help;
}

/** The range and default of a field in words, such as "1 to 1,024; default 16." */
export function rangeText(field: FieldInfo): string {
  const low = field.minimum ?? field.exclusive_minimum;
  const high = field.maximum ?? field.exclusive_maximum;
  const show = (value: number): string => value.toLocaleString('en', { maximumSignificantDigits: 6 });
  const lowText = low === null ? '' : field.minimum === null ? `above ${show(low)}` : show(low);
  const highText = high === null ? '' : field.maximum === null ? `below ${show(high)}` : show(high);
  const range = lowText && highText ? `${lowText} to ${highText}` : lowText ? `from ${lowText}` : highText;
  const usual = ['integer', 'number', 'choice'].includes(field.type) && field.default !== null ? `default ${String(field.default)}` : '';
  const text = [range.replace('from above', 'above'), usual].filter(Boolean).join('; ');
  return text ? `${text.charAt(0).toUpperCase()}${text.slice(1)}.` : '';
}

/** Whether a typed number is one that the field takes, so that it can be sent at once. */
export function isPlausible(field: FieldInfo, typed: string): boolean {
  const text = typed.trim();
  const form = field.type === 'integer' ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
  if (!['integer', 'number'].includes(field.type) || !form.test(text)) {
    return false;
  }
  const value = Number(text);
  const inside = (limit: number | null, ok: (limit: number) => boolean): boolean => limit === null || ok(limit);
  return (
    inside(field.minimum, limit => value >= limit) &&
    inside(field.maximum, limit => value <= limit) &&
    inside(field.exclusive_minimum, limit => value > limit) &&
    inside(field.exclusive_maximum, limit => value < limit)
  );
}

/** A select with more choices than these lists names to look up, such as optimizers, as they are. */
const MOST_WORDS = 12;

function makeControl(field: FieldInfo, id: string, send: Send): Control {
  if (field.type === 'boolean') {
    return checkbox(id, send);
  }
  if (field.type === 'list') {
    return chips(field, id, send);
  }
  if (field.type === 'choice') {
    return isSegmented(field) ? segments(field, id, send) : select(field, id, send);
  }
  return textInput(field, id, send);
}

function isSegmented(field: FieldInfo): boolean {
  const choices = field.choices ?? [];
  const length = choices.reduce<number>((sum, choice) => sum + String(choice).length, 0);
  return field.type === 'choice' && choices.length <= 3 && length <= 14;
}

function textInput(field: FieldInfo, id: string, send: Send): Control {
  const numeric = field.type === 'integer' || field.type === 'number';
  const input = h('input', {
    type: 'text',
    id,
    class: 'tb-input',
    inputmode: numeric ? (field.type === 'integer' ? 'numeric' : 'decimal') : null,
    placeholder: field.optional ? 'not set' : null,
    autocomplete: 'off',
    spellcheck: 'false'
  });
  const later = debounce(send, 500);
  const soon = throttle(send, 40);
  input.addEventListener('input', () => {
    if (isPlausible(field, input.value)) {
      later.cancel();
      soon(input.value); // the forecast follows every key
    } else {
      later(input.value); // nobody is told off in the middle of a number
    }
  });
  input.addEventListener('change', () => later.flush());
  const node = h('div', { class: 'tb-control' }, input, field.unit ? h('span', { class: 'tb-unit' }, field.unit) : null);
  return { node, focusable: input, show: value => (input.value = value === null || value === undefined ? '' : String(value)) };
}

function checkbox(id: string, send: Send): Control {
  const input = h('input', { type: 'checkbox', id, class: 'tb-check' });
  const word = h('span', { class: 'tb-unit', 'aria-hidden': 'true' });
  input.addEventListener('change', () => send(input.checked));
  const show = (value: unknown): void => {
    input.checked = Boolean(value);
    setText(word, value ? 'on' : 'off');
  };
  return { node: h('div', { class: 'tb-control' }, input, word), focusable: input, show };
}

function select(field: FieldInfo, id: string, send: Send): Control {
  const node = h('select', { id, class: 'tb-input' });
  const choices = field.choices ?? [];
  const names = choices.length > MOST_WORDS;
  for (const choice of choices) {
    node.append(h('option', { value: String(choice) }, names ? String(choice) : words(choice)));
  }
  node.addEventListener('change', () => send(node.value));
  return { node: h('div', { class: 'tb-control tb-select' }, node), focusable: node, show: value => (node.value = String(value)) };
}

function segments(field: FieldInfo, id: string, send: Send): Control {
  const node = h('div', { class: 'tb-segments', role: 'radiogroup', 'aria-labelledby': `${id}-label` });
  const inputs = (field.choices ?? []).map(choice => {
    const input = h('input', { type: 'radio', name: id, value: String(choice) });
    input.addEventListener('change', () => send(String(choice)));
    node.append(h('label', {}, input, h('span', {}, words(choice))));
    return input;
  });
  const unit = field.unit ? h('span', { class: 'tb-unit' }, field.unit) : null;
  return {
    node: h('div', { class: 'tb-control' }, node, unit),
    focusable: node,
    show: value => inputs.forEach(input => (input.checked = input.value === String(value)))
  };
}

function chips(field: FieldInfo, id: string, send: Send): Control {
  const node = h('div', { class: 'tb-chips', role: 'group', 'aria-labelledby': `${id}-label` });
  let known: string[] = [];
  let chosen = new Set<string>();
  const draw = (): void => {
    const labels = known.map(name => {
      const input = h('input', { type: 'checkbox', value: name });
      input.checked = chosen.has(name);
      input.addEventListener('change', () => {
        chosen = new Set(known.filter(item => (item === name ? input.checked : chosen.has(item))));
        send([...chosen]);
      });
      return h('label', { class: 'tb-chip' }, input, h('span', {}, words(name)));
    });
    node.replaceChildren(...labels);
  };
  const show = (value: unknown): void => {
    const listed = Array.isArray(value) ? value.map(String) : [];
    const usual = Array.isArray(field.default) ? field.default.map(String) : [];
    const all = [...new Set([...(field.choices ?? []).map(String), ...usual, ...known, ...listed])];
    const next = new Set(Array.isArray(value) ? listed : all);
    if (all.join() !== known.join() || [...next].join() !== [...chosen].join()) {
      [known, chosen] = [all, next];
      draw();
    }
  };
  return { node, focusable: node, show };
}

/** A choice as it is shown: `last_response` as "last response"; layer names stay as they are. */
function words(choice: unknown): string {
  const text = String(choice);
  return text.endsWith('_proj') ? text : text.replaceAll('_', ' ');
}
