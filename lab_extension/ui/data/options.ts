/** What the list of sources offers for what was typed. Pure; knows no element. */

import type { SourceGroup } from './state.ts';

/** The groups with the options that hold what was typed, and at the end the text as it stands. */
export function matching(groups: readonly SourceGroup[], typed: string): SourceGroup[] {
  const wanted = typed.trim().toLowerCase();
  if (!wanted) {
    return [...groups];
  }
  const found = groups
    .map(group => ({ ...group, options: group.options.filter(option => `${option.title} ${option.about ?? ''}`.toLowerCase().includes(wanted)) }))
    .filter(group => group.options.length > 0);
  const value = typed.trim();
  return [...found, { title: 'As it is written', options: [{ kind: 'typed', value, title: value, about: meaning(value) }] }];
}

/** What a text names that nobody found. */
export function meaning(text: string): string {
  const path = /^[./~]|\\|^[a-z]:/i.test(text) || /\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|feather|txt|text|md)(\.(gz|bz2|xz))?$/i.test(text);
  return path ? 'a file' : /^[\w.-]+\/[\w.-]+$/.test(text) ? 'a dataset of the Hugging Face hub' : 'a folder, or a dataset of the Hugging Face hub';
}
