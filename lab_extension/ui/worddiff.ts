/** Which words of a text are new beside an earlier one. Pure functions. */

export interface Piece {
  text: string;
  changed: boolean;
}

const MOST = 400; // words; a longer text is shown without marks

/** The pieces of `now` in order, those marked that `before` has not at that place. */
export function changes(before: string, now: string): Piece[] {
  const [old, fresh] = [words(before), words(now)];
  if (old.length > MOST || fresh.length > MOST) {
    return [{ text: now, changed: false }];
  }
  const kept = common(old, fresh);
  const pieces: Piece[] = [];
  fresh.forEach((word, at) => {
    const changed = !kept.has(at) && word.trim() !== '';
    const last = pieces[pieces.length - 1];
    if (last && (last.changed === changed || word.trim() === '')) {
      last.text += word;
    } else {
      pieces.push({ text: word, changed });
    }
  });
  return pieces;
}

function words(text: string): string[] {
  return text.match(/\s+|[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu) ?? [];
}

/** Places in `fresh` that belong to a longest common subsequence with `old`. */
function common(old: string[], fresh: string[]): Set<number> {
  const width = fresh.length + 1;
  const table = new Uint16Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = fresh.length - 1; j >= 0; j -= 1) {
      const same = old[i] === fresh[j];
      const [down, right] = [table[(i + 1) * width + j] as number, table[i * width + j + 1] as number];
      table[i * width + j] = same ? 1 + (table[(i + 1) * width + j + 1] as number) : Math.max(down, right);
    }
  }
  const kept = new Set<number>();
  let [i, j] = [0, 0];
  while (i < old.length && j < fresh.length) {
    if (old[i] === fresh[j]) {
      kept.add(j);
      i += 1;
      j += 1;
    } else if ((table[(i + 1) * width + j] as number) >= (table[i * width + j + 1] as number)) {
      i += 1;
    } else {
      j += 1;
    }
  }
  return kept;
}
