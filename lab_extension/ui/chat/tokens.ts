/** An answer token by token: shaded by probability, each with the alternatives that there were. */

import { freshId, h, toggle } from '../dom.ts';
import { percent, surprise, visible, type ChatToken } from './state.ts';

/** A box of tokens; pointing at one, or the arrow keys, show what else could have been said. */
export function probabilityView(tokens: readonly ChatToken[], label: string): HTMLElement {
  const prefix = freshId('chance');
  const box = h('div', { class: 'tb-said', tabindex: 0, role: 'listbox', 'aria-label': label, 'aria-orientation': 'horizontal', dir: 'auto' });
  box.append(...tokens.map((token, at) => tokenElement(token, at, `${prefix}-${at}`)));
  const detail = h('div', { class: 'tb-chance', hidden: true });
  let active = -1;
  const show = (at: number): void => {
    const token = tokens[at];
    detail.replaceChildren(...(token ? about(token) : []));
    toggle(detail, token !== undefined);
  };
  const activate = (at: number): void => {
    box.children[active]?.setAttribute('aria-selected', 'false');
    active = at;
    const element = box.children[at];
    element?.setAttribute('aria-selected', 'true');
    box.setAttribute('aria-activedescendant', element?.id ?? '');
    show(at);
  };
  const numberOf = (target: EventTarget | null): number => {
    const at = (target as HTMLElement | null)?.closest<HTMLElement>('[data-at]')?.dataset['at'];
    return at === undefined ? active : Number(at);
  };
  box.addEventListener('pointerover', event => show(numberOf(event.target)));
  box.addEventListener('pointerleave', () => show(active));
  box.addEventListener('click', event => activate(numberOf(event.target)));
  box.addEventListener('focus', () => active < 0 && activate(0));
  box.addEventListener('blur', () => activate(-1));
  box.addEventListener('keydown', event => {
    const last = tokens.length - 1;
    const moves: Record<string, number> = { ArrowRight: active + 1, ArrowDown: active + 10, ArrowLeft: active - 1, ArrowUp: active - 10, Home: 0, End: last };
    const to = moves[event.key];
    if (to !== undefined && last >= 0 && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      activate(Math.min(last, Math.max(0, to)));
    } else if (event.key === 'Escape') {
      show(-1);
    }
  });
  return h('div', { class: 'tb-chances' }, box, detail);
}

function tokenElement([piece, probability, , alternatives]: ChatToken, at: number, id: string): HTMLElement {
  const likeliest = alternatives[0]?.[0];
  const other = likeliest !== undefined && likeliest !== piece ? `, likeliest was ${visible(likeliest)}` : '';
  return h(
    'span',
    {
      id,
      class: `tb-said-token tb-surprise-${surprise(probability)}${isSpecial(piece) ? ' tb-said-special' : ''}`,
      role: 'option',
      'aria-selected': 'false',
      'aria-label': `${visible(piece)}, ${percent(probability)}${other}`,
      'data-at': at
    },
    piece.replaceAll('\n', '↵\n') || '∅'
  );
}

/** Tokens that are written for the model and not for people: the end of a turn and the like. */
function isSpecial(piece: string): boolean {
  return /^<[^<>\s]+>$/.test(piece);
}

/** The likeliest tokens as bars, the one that was said among them. */
function about([piece, probability, chance, alternatives]: ChatToken): HTMLElement[] {
  const bars = alternatives.map(([text, share]) => bar(text, share, text === piece));
  if (!alternatives.some(([text]) => text === piece)) {
    bars.push(bar(piece, probability, true));
  }
  const drawn = Math.abs(chance - probability) > 0.005 && chance < 1;
  const settings = drawn && h('p', { class: 'tb-muted' }, `With these sampling settings ${visible(piece)} had ${percent(chance)}.`);
  return [h('ol', { class: 'tb-others' }, ...bars), ...(settings ? [settings] : [])];
}

function bar(text: string, share: number, chosen: boolean): HTMLElement {
  const fill = h('span', { class: 'tb-share' });
  fill.style.inlineSize = `${Math.max(1, 100 * share)}%`;
  const name = h('code', { dir: 'auto' }, visible(text));
  return h('li', { class: chosen ? 'tb-chosen' : '' }, name, h('span', { class: 'tb-track', 'aria-hidden': 'true' }, fill), h('span', {}, percent(share)));
}

/** What the colours mean, and how to see more. */
export function chanceLegend(): HTMLElement {
  const keys = ['sure', '', '', '', 'surprised'].map((word, at) => h('span', { class: `tb-said-token tb-surprise-${at}` }, word || '\u00a0\u00a0'));
  return h(
    'p',
    { class: 'tb-chance-legend tb-muted' },
    h('span', { class: 'tb-chance-scale' }, ...keys),
    'Point at a word, or go through an answer with the arrow keys, to see what else it could have said.'
  );
}
