/** What the take-away panel shows. */

import type { AnyModel, PanelState } from '../model.ts';

export interface Form {
  name: string;
  title: string;
  description: string;
  size: string;
}

/** A type of GGUF file; `share` is its size beside 16 bit. */
export interface Quantization {
  name: string;
  title: string;
  closeness: string;
  sentence: string;
  usual: boolean;
  size: string;
  bits: string;
  share: number;
}

/** One file, or the whole folder where all belongs together; `title` tells it from others. */
export interface Part {
  title: string;
  size: string;
  usage: [program: string, code: string][];
  /** Of a GGUF whose types were chosen for the model. */
  mix: Mix | Record<string, never>;
}

/** Which tensor got which type and why, and how good that is, beside llama.cpp's mix. */
export interface Mix {
  name: string;
  bits: number;
  used: boolean;
  gain: number | null;
  about: string;
  measured: Measured[];
  tensors: MixTensor[];
}

/** How far a mix moves the next token's probabilities, in nats. */
export interface Measured {
  name: string;
  size: string;
  mean: number;
  percentile_99: number;
  percentile_99_9: number;
  same_top: number;
}

/** `layer` is -1 for a tensor that belongs to none. */
export interface MixTensor {
  name: string;
  layer: number;
  role: string;
  type: string;
  bits: number;
  size: string;
  error: number;
  stock: string;
  why: string;
}

export interface Written {
  path: string;
  size: string;
  form: string;
  title: string;
  notes: string[];
  verified: { ok?: boolean; summary?: string; compared?: string };
  parts: Part[];
}

export interface TakeAwayState extends PanelState {
  formats: Form[];
  quantizations: Quantization[];
  folder: string;
  check: boolean;
  ready: boolean;
  working: string;
  progress: { text?: string; done?: number; total?: number };
  files: Written[];
  repo: string;
  private: boolean;
  replace: boolean;
  token_from: '' | 'login' | 'memory';
  page: string;
}

export type TakeAwayModel = AnyModel<TakeAwayState>;

/** The list of names in a recipe field. */
export function chosen(model: TakeAwayModel, path: string): string[] {
  const value = model.get('values')[path];
  return Array.isArray(value) ? value.map(String) : [];
}

/** The names that are ticked now: those chosen before in their order, then the new ones. */
export function inOrder(before: readonly string[], ticked: readonly string[]): string[] {
  return [...before.filter(name => ticked.includes(name)), ...ticked.filter(name => !before.includes(name))];
}
