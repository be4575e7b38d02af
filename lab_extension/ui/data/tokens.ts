/** A row as tokens: turn by turn, coloured, each with its id and what was measured at it. */

import { h, freshId, setText } from '../dom.ts';
import { figure } from '../format.ts';
import type { Counts, Token } from './state.ts';
import { shown, visible } from '../visible.ts';
import { blocks, heat, HEATS } from './turns.ts';

export interface TokenView {
  node: HTMLElement;
  draw: (tokens: readonly Token[], roles: readonly string[], counts: Counts, valuesName: string) => void;
  showIds: (shown: boolean) => void;
}

/** A box of tokens in which the arrow keys go from one to the next and a line says what each is. */
export function tokenView(label: string, hints = true): TokenView {
  const box = h('div', { class: 'tb-tokens', tabindex: 0, role: 'listbox', 'aria-label': label, 'aria-orientation': 'horizontal' });
  const said = h('p', { class: 'tb-token-said tb-muted', 'aria-hidden': 'true' });
  const prefix = freshId('token');
  let tokensShown: readonly Token[] = [];
  let roleOf: readonly string[] = [];
  let name = '';
  let active = -1;

  const element = (at: number): HTMLElement | null => box.querySelector(`#${prefix}-${at}`);
  const say = (at: number): void => {
    const token = tokensShown[at];
    setText(said, token ? about(token, roleOf, name) : tokensShown.length && hints ? 'Point at a token, or go through them with the arrow keys.' : '');
  };
  const activate = (at: number): void => {
    element(active)?.classList.remove('tb-active');
    element(active)?.setAttribute('aria-selected', 'false');
    active = at;
    const token = element(at);
    if (token) {
      token.classList.add('tb-active');
      token.setAttribute('aria-selected', 'true');
      box.setAttribute('aria-activedescendant', token.id);
      reveal(box, token);
    } else {
      box.removeAttribute('aria-activedescendant');
    }
    say(at);
  };
  const numberOf = (target: EventTarget | null): number =>
    Number((target as HTMLElement | null)?.closest<HTMLElement>('[data-at]')?.dataset['at'] ?? -1);
  box.addEventListener('pointerover', event => say(numberOf(event.target) < 0 ? active : numberOf(event.target)));
  box.addEventListener('pointerleave', () => say(active));
  box.addEventListener('click', event => numberOf(event.target) >= 0 && activate(numberOf(event.target)));
  box.addEventListener('keydown', event => {
    const last = tokensShown.length - 1;
    const moves: Record<string, number> = { ArrowRight: active + 1, ArrowDown: active + 10, ArrowLeft: active - 1, ArrowUp: active - 10, Home: 0, End: last };
    const to = moves[event.key];
    if (to !== undefined && last >= 0 && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      activate(Math.min(last, Math.max(0, to)));
    }
  });

  return {
    node: h('div', { class: 'tb-token-view' }, box, said),
    showIds: on => box.classList.toggle('tb-with-ids', on),
    draw(tokens, roles, counts, valuesName) {
      [tokensShown, roleOf, name] = [tokens, roles, valuesName];
      const [low, high] = counts.values ?? [];
      const scale = low !== undefined && high !== undefined ? ([low, high] as const) : undefined;
      box.classList.toggle('tb-valued', scale !== undefined);
      const drawn = blocks(tokens).map(block => {
        const role = roles[block.turn] ?? 'template';
        const cells = block.tokens.flatMap((token, at) => [
          cell(token, block.start + at, `${prefix}-${block.start + at}`, roles, valuesName, scale),
          token[0].endsWith('\n') && '\n' // behind the token's id
        ]);
        return h('div', { class: 'tb-token-turn', role: 'group', 'aria-label': visible(role), 'data-role': role }, h('span', { class: 'tb-role', 'aria-hidden': 'true' }, visible(role)), h('div', { class: 'tb-token-run' }, ...cells));
      });
      box.replaceChildren(...drawn);
      activate(-1);
    }
  };
}

/** Scroll inside the box alone, so that the page stays where it is. */
function reveal(box: HTMLElement, token: HTMLElement): void {
  const [outer, inner] = [box.getBoundingClientRect(), token.getBoundingClientRect()];
  if (inner.top < outer.top) {
    box.scrollTop -= outer.top - inner.top + 8;
  } else if (inner.bottom > outer.bottom) {
    box.scrollTop += inner.bottom - outer.bottom + 8;
  }
}

function cell(token: Token, at: number, id: string, roles: readonly string[], name: string, scale?: readonly [number, number]): HTMLElement {
  const [text, number, kinds, , value] = token;
  const warm = scale && value !== null ? ` tb-heat tb-heat-${heat(value, ...scale)}` : '';
  const written = text.replaceAll('\n', '↵\n').replace(/\n$/, '').replaceAll('\t', '⇥\t') || (kinds.includes('continues') ? '' : '∅');
  return h(
    'span',
    { id, class: `tb-token ${kinds}${warm}`, role: 'option', 'aria-selected': 'false', 'data-at': at, 'data-id': number, 'aria-label': about(token, roles, name) },
    ...shown(written)
  );
}

function about([text, id, kinds, turn, value]: Token, roles: readonly string[], name: string): string {
  const is = new Set(kinds.split(' '));
  return [
    `“${visible(text.replaceAll('\n', '↵')) || '∅'}”`,
    `token ${id}`,
    is.has('trained') ? 'learned' : 'only read',
    is.has('special') && 'special',
    turn < 0 ? 'written by the template' : `turn ${turn + 1}, ${roles[turn] ?? 'text'}`,
    is.has('only') && 'only under this template',
    is.has('mask') && 'learned under one template only',
    value !== null && `${name} ${figure(value)}`
  ]
    .filter(Boolean)
    .join(' · ');
}

/** What the colours mean. */
export function legend(counts: Counts, valuesName: string, compared: boolean): HTMLElement {
  const item = (kinds: string, text: string): HTMLElement =>
    h('span', { class: 'tb-token-key' }, h('span', { class: `tb-token ${kinds}`, 'aria-hidden': 'true' }, 'Aa'), text);
  const keys = [item('trained', 'learned'), item('masked', 'only read'), item('masked special', 'special')];
  if (compared) {
    keys.push(item('masked only', 'only here'), item('masked mask', 'learned on one side'));
  }
  const [low, high] = counts.values ?? [];
  if (low !== undefined && high !== undefined) {
    const steps = Array.from({ length: HEATS }, (_, at) => h('span', { class: `tb-heat tb-heat-${at}` }));
    keys.push(h('span', { class: 'tb-token-key' }, `${valuesName} ${figure(low)}`, h('span', { class: 'tb-heat-scale', 'aria-hidden': 'true' }, ...steps), figure(high)));
  }
  return h('p', { class: 'tb-token-legend' }, ...keys);
}
