/** One run as the server tells it: what a document shows of it. Types, and bytes out of base64. */

import { columns } from '../format.ts';
import type { ThreePartError } from '../model.ts';
import type { Asked, Said } from '../told.ts';

/** The numbers of the train panel, under the same names; points are float32 columns in base64. */
export interface RunPicture {
  path: string;
  /** Where it is on the server's machine. */
  folder: string;
  name: string;
  state: string;
  /** What is asked of it and not done yet. */
  requests: string[];
  error: ThreePartError;
  device: string;
  step: number;
  total: number;
  eta: number | null;
  seconds: number;
  first_loss: number | null;
  last_loss: number | null;
  learning_rate: number | null;
  tokens_per_second: number | null;
  peak: number;
  gpu_busy: string;
  loss_points: string;
  memory_points: string;
  evaluation_points: string;
  messages: Said[];
  samples: Asked[];
}

export interface RunFile {
  /** Relative to the run's folder. */
  path: string;
  depth: number;
  directory: boolean;
  bytes: number;
  modified: number;
}

export interface RecipeRow {
  path: string;
  title: string;
  about: string;
  value: string;
  changed: boolean;
}

export interface RunContents {
  recipe: { text: string; groups: { title: string; rows: RecipeRow[] }[]; error: ThreePartError };
  files: RunFile[];
  more: boolean;
}

/** The columns of a curve. */
export function points(base64: string | undefined, width: number): Float32Array[] {
  const text = atob(base64 ?? '');
  return columns(Uint8Array.from(text, letter => letter.charCodeAt(0)).buffer, width);
}
