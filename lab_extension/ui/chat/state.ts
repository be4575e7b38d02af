/** What the try panel shows: turns, answers, tokens, test cases. */

import type { AnyModel, PanelState } from '../model.ts';

/** What is read, how likely, how likely the settings made it, and the likeliest tokens here. */
export type ChatToken = [piece: string, probability: number, chance: number, alternatives: [string, number][]];

export interface Answer {
  text: string;
  state: 'waiting' | 'writing' | 'done' | 'stopped';
  tokens: ChatToken[];
}

export interface Turn {
  user: string;
  seed: number;
  tuned: Answer;
  base?: Answer;
}

export interface CaseRow {
  id: string;
  question: string;
  match: 'free' | 'contains' | 'exact' | 'latex';
  expected: string;
  before: string;
  before_run: string;
  now: string;
  verdict: string;
}

export interface ChatState extends PanelState {
  ready: boolean;
  answering: boolean;
  compare: boolean;
  probabilities: boolean;
  system: string;
  draft: string;
  turns: Turn[];
  writing: Turn | Record<string, never>;
  cases: CaseRow[];
  cases_summary: string;
  checking: { done?: number; total?: number };
}

export type ChatModel = AnyModel<ChatState>;

/** The conversation with the turn that is being answered. */
export function allTurns(model: ChatModel): Turn[] {
  const writing = model.get('writing');
  return 'user' in writing ? [...model.get('turns'), writing as Turn] : model.get('turns');
}

/** How surprised the model was, from 0 (sure) to 4: the share of colour behind a token. */
export function surprise(probability: number): number {
  return [0.9, 0.6, 0.3, 0.1].filter(limit => probability < limit).length;
}

/** A probability as "92 %", "3.4 %", "0.02 %" or "< 0.01 %". */
export function percent(probability: number): string {
  const value = 100 * probability;
  if (value < 0.01) {
    return '< 0.01 %';
  }
  return `${value >= 99.95 ? '100' : value >= 10 ? value.toFixed(0) : value.toPrecision(2)} %`;
}

/** A token with its blanks made visible. */
export function visible(piece: string): string {
  return piece.replaceAll('\n', '↵').replaceAll('\t', '⇥').replace(/^ +| +$/g, blanks => '␣'.repeat(blanks.length)) || '∅';
}
