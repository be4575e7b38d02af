/** Characters that would steer what shows a text, written out: `\x1b`, `\u202e`. Pure but for `shown`. */

import { h } from './dom.ts';

/**
 * Control characters but for new lines and tabs, marks of writing direction, separators, halves of
 * characters and invisible tags. Joiners stay, since letters of some scripts and emoji need them.
 */
const STEERING =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

const NAMES: Record<number, string> = {
  0x00: 'NUL',
  0x08: 'backspace',
  0x0d: 'carriage return',
  0x1b: 'escape',
  0x061c: 'Arabic letter mark',
  0x200b: 'zero-width space',
  0x200e: 'left-to-right mark',
  0x200f: 'right-to-left mark',
  0x202a: 'left-to-right embedding',
  0x202b: 'right-to-left embedding',
  0x202c: 'end of direction',
  0x202d: 'left-to-right override',
  0x202e: 'right-to-left override',
  0x2066: 'left-to-right isolate',
  0x2067: 'right-to-left isolate',
  0x2068: 'isolate',
  0x2069: 'end of isolate',
  0xfeff: 'byte order mark'
};

/** A character as an escape sequence. */
export function escaped(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  return code < 0x100 ? `\\x${hex.padStart(2, '0')}` : code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
}

/** The text with such characters written out. */
export function visible(text: string): string {
  return text.replace(STEERING, escaped);
}

/** The text cut at such characters, in order. */
export function cut(text: string): { text: string; steers: boolean }[] {
  const found: { text: string; steers: boolean }[] = [];
  let last = 0;
  for (const match of text.matchAll(STEERING)) {
    if (match.index > last) {
      found.push({ text: text.slice(last, match.index), steers: false });
    }
    found.push({ text: match[0], steers: true });
    last = match.index + match[0].length;
  }
  if (last < text.length) {
    found.push({ text: text.slice(last), steers: false });
  }
  return found;
}

/** Children for an element that shows data: text, and a marked escape for each such character. */
export function shown(text: string): (string | HTMLElement)[] {
  const pieces = cut(text);
  if (pieces.length === 0 || (pieces.length === 1 && !pieces[0]?.steers)) {
    return [text];
  }
  return pieces.map(piece => (piece.steers ? mark(piece.text) : piece.text));
}

function mark(character: string): HTMLElement {
  const name = NAMES[character.codePointAt(0) ?? 0] ?? 'control character';
  return h('span', { class: 'tb-escape', title: name, dir: 'ltr' }, escaped(character));
}
