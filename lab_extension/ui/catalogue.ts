/** Rows of models searched, filtered and sorted; pure functions. */

export interface Row {
  name: string;
  title: string;
  source: 'catalogue' | 'folder' | 'cache' | 'typed';
  family: string;
  parameters: number;
  context: number;
  licence: string;
  languages: string[];
  modality: string[];
  template: string;
  hub_id: string;
  verdict: '' | 'fits' | 'tight' | 'no';
  memory: number;
  seconds: number;
  cure: string;
  change: Record<string, unknown>;
  why: string;
}

export interface View {
  query?: string;
  family?: string;
  size?: string;
  modality?: string;
  fits?: boolean;
  sort?: string;
}

/** Sizes to filter by, in parameters: from, below. */
export const SIZES: Record<string, { title: string; from: number; below: number }> = {
  small: { title: 'under 1 B', from: 0, below: 1e9 },
  medium: { title: '1 to 5 B', from: 1e9, below: 5e9 },
  large: { title: '5 to 15 B', from: 5e9, below: 15e9 },
  huge: { title: 'over 15 B', from: 15e9, below: Infinity }
};

export const SORTS: Record<string, { title: string; by: ((row: Row) => number | string) | null }> = {
  '': { title: 'as listed', by: null },
  smallest: { title: 'smallest first', by: row => row.parameters },
  largest: { title: 'largest first', by: row => -row.parameters },
  memory: { title: 'least memory', by: row => row.memory || Infinity },
  context: { title: 'longest context', by: row => -row.context },
  name: { title: 'name', by: row => row.title.toLowerCase() }
};

/** What a row is searched by. */
function textOf(row: Row): string {
  return [row.name, row.title, row.hub_id, row.family, row.licence, ...row.languages, ...row.modality].join(' ').toLowerCase();
}

/** The rows that a view shows, in its order. */
export function shownRows(rows: readonly Row[], view: View): Row[] {
  const words = (view.query ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  const size = SIZES[view.size ?? ''];
  const kept = rows.filter(
    row =>
      words.every(word => textOf(row).includes(word)) &&
      (!view.family || row.family === view.family) &&
      (!size || (row.parameters >= size.from && row.parameters < size.below)) &&
      (!view.modality || row.modality.includes(view.modality)) &&
      (!view.fits || row.verdict === 'fits' || row.verdict === 'tight')
  );
  const by = SORTS[view.sort ?? '']?.by;
  if (!by) {
    return kept;
  }
  return kept
    .map((row, at) => ({ row, at, key: by(row) }))
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : a.at - b.at))
    .map(({ row }) => row);
}

/** `131072` tokens as "128 k". */
export function contextText(tokens: number): string {
  return tokens >= 1024 ? `${Math.round(tokens / 1024)} k` : String(tokens);
}
