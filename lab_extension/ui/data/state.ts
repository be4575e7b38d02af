/** What the data panel's traits hold. */

import { count } from '../format.ts';
import type { AnyModel, PanelState, ThreePartError } from '../model.ts';

/** `kinds` are words: trained or masked, perhaps special, and in a comparison same, only or mask. */
export type Token = [text: string, id: number, kinds: string, turn: number, value: number | null];
export type Piece = [text: string, turn: number, role: string, trained: boolean];
export type Severity = 'error' | 'warning' | 'info';
export type Line = [row: number, words: string, tokens: number | null, marks: [words: string, severity: Severity][]];
export type StageName = 'raw' | 'messages' | 'text' | 'tokens' | 'packed';

export interface Finding {
  severity: Severity;
  code: string;
  title: string;
  count: number;
  examples: number[];
  do: string;
  fix: string | null;
  listed: boolean;
}

export interface Counts {
  tokens?: number;
  trained?: number;
  truncated?: boolean;
  cut?: number;
  shown?: number;
  values?: [number, number] | [];
}

export interface Side {
  template: string;
  tokens: Token[];
  counts: Counts;
  error: ThreePartError;
}

export interface Placement {
  state: 'packed' | 'batched' | 'evaluation' | 'left_out' | 'unknown';
  words: string;
  length: number;
  capacity: number;
  rows: { row: number; start: number; length: number }[];
  padded: number | null;
}

/** `after` is null where the row is left out. */
export interface FixPreview {
  fix?: string;
  words?: string;
  able?: boolean;
  row?: number;
  where?: string;
  before?: string;
  after?: string | null;
}

export interface SourceOption {
  kind: string;
  value: string;
  title: string;
  about?: string;
}

export interface SourceGroup {
  title: string;
  options: SourceOption[];
}

/** `how` is detected, mapped (by hand) or guessed; `tried` says that it is not taken yet. */
export interface Mapping {
  columns?: { name: string; kind: string; example: string }[];
  kind?: string;
  chosen?: Record<string, string>;
  how?: 'detected' | 'mapped' | 'guessed';
  why?: string;
  confidence?: number;
  kinds?: { name: string; title: string; needs: string[]; may: string[] }[];
  parts?: Record<string, string>;
  example?: { messages?: { role: string; content: string }[]; error?: ThreePartError };
  tried?: boolean;
}

/** What one maximum length does to the rows. */
export type Stop = [limit: number, rows: number, cut: number, leftOut: number, lost: number, lostTrained: number];

export interface Lengths {
  rows?: number;
  of?: number | null;
  tokens?: number;
  trained?: number;
  longest?: number;
  limit?: number;
  logarithmic?: boolean;
  bins?: [from: number, to: number, rows: number][];
  stops?: Stop[];
}

export interface Trial {
  limit?: number;
  memory?: number;
  memory_now?: number;
  budget?: number;
  fits?: boolean;
  seconds?: number | null;
  seconds_now?: number | null;
}

export interface DataState extends PanelState {
  sources: SourceGroup[];
  rows_name: string;
  upload: { id?: string; name?: string; size?: number; received?: number; state?: 'sending' | 'done'; path?: string };
  upload_folder: string;
  mapping: Mapping;
  lengths: Lengths;
  trial: Trial;
  format: { name?: string; words?: string };
  rows: number;
  row: number;
  place: number;
  listing: { text?: string; only?: string; total?: number; scanned?: number; searching?: boolean; ready?: boolean; version?: number };
  lines: { version?: number; start?: number; lines?: Line[] };
  raw: Record<string, unknown>;
  conversation: { role: string; content: string; calls: string[] }[];
  tools: { words?: string; offered?: [name: string, description: string, schema: string][] };
  text: Piece[];
  tokens: Token[];
  packed: Partial<Placement>;
  counts: Counts;
  row_error: ThreePartError & { stage?: StageName };
  stage: StageName;
  show_ids: boolean;
  values_name: string;
  templates: [name: string, title: string][];
  comparison: { template?: string; words?: string; mine?: Side; other?: Side; error?: ThreePartError };
  statistics: { rows?: number; tokens?: number; trained_share?: number; truncated?: number; mean_length?: number; longest?: number };
  findings: Finding[];
  fix_preview: FixPreview;
  fixes: { fix: string; applied: string }[];
  fix_file: string;
  saved: string;
}

export type Model = AnyModel<DataState>;

export function countsText(counts: Counts): string {
  if (counts.tokens === undefined) {
    return '';
  }
  const trained = counts.trained ?? 0;
  const share = counts.tokens ? Math.round((100 * trained) / counts.tokens) : 0;
  const cut = counts.truncated ? `, ${count(counts.cut ?? 0)} more cut off at the maximum length` : '';
  const part = (counts.shown ?? counts.tokens) < counts.tokens ? ` (the first ${count(counts.shown ?? 0)} are shown)` : '';
  return `${count(counts.tokens)} tokens, ${count(trained)} learned (${share} %)${cut}${part}`;
}
