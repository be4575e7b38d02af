/** Tokens put together turn by turn, as a person reads a conversation. Pure; knows no element. */

import type { Token } from './state.ts';

export interface Block {
  /** The turn that the block shows; -1 where the template stands alone. */
  turn: number;
  /** The number of its first token in the row. */
  start: number;
  tokens: Token[];
}

/**
 * Blocks of tokens, one a turn, in order: the template's tokens stand with the turn that they open
 * or, up to the first special one and the blanks behind it, with the turn that they end.
 */
export function blocks(tokens: readonly Token[]): Block[] {
  const found: Block[] = [];
  let at = 0;
  while (at < tokens.length) {
    const outside = run(tokens, at, token => token[3] < 0);
    const previous = found.at(-1);
    const last = outside === tokens.length;
    const ending = previous ? (last ? outside - at : endOf(tokens.slice(at, outside), tokens[at - 1])) : 0;
    previous?.tokens.push(...tokens.slice(at, at + ending));
    const turn = tokens[outside]?.[3] ?? -1;
    const end = outside < tokens.length ? run(tokens, outside, token => token[3] === turn) : outside;
    const start = at + ending;
    if (end > start) {
      if (previous && previous.turn === turn) {
        previous.tokens.push(...tokens.slice(start, end));
      } else {
        found.push({ turn, start, tokens: tokens.slice(start, end) });
      }
    }
    at = end;
  }
  return found;
}

function run(tokens: readonly Token[], from: number, same: (token: Token) => boolean): number {
  let at = from;
  while (at < tokens.length && same(tokens[at] as Token)) {
    at += 1;
  }
  return at;
}

/**
 * How many of the tokens between two turns end the earlier one: blanks; or, unless its own last
 * token was special, a special one if more follow, or the rest of the line if words follow.
 */
function endOf(between: readonly Token[], before: Token | undefined): number {
  const special = (token: Token): boolean => token[2].includes('special');
  const behind = (at: number): number => run(between, at, token => token[0].trim() === '');
  const [first] = between;
  if (!first || behind(0) || (before && special(before))) {
    return behind(0);
  }
  if (special(first)) {
    return between.slice(1).some(special) || behind(1) === between.length ? behind(1) : 0;
  }
  const line = between.findIndex(token => token[0].includes('\n'));
  return line >= 0 && behind(line + 1) < between.length ? behind(line + 1) : 0;
}

/** Steps of a colour scale, from 0. */
export const HEATS = 8;

/** Which of `HEATS` colours stands for a value between the lowest and the highest. */
export function heat(value: number, low: number, high: number): number {
  const share = high > low ? (value - low) / (high - low) : 0;
  return Math.min(HEATS - 1, Math.max(0, Math.floor(share * HEATS)));
}
