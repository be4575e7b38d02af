/** The traits of the train panel, as Python syncs them. */

import type { AnyModel, PanelState } from '../../ui/model.ts';
import type { Asked, Said } from '../../ui/told.ts';

export interface TrainState extends PanelState {
  state: string;
  phase: string;
  requests: string[];
  colab: boolean;
  run_name: string;
  run_path: string;
  device: string;
  step: number;
  total: number;
  eta: number | null;
  seconds: number;
  first_loss: number | null;
  last_loss: number | null;
  learning_rate: number | null;
  gradient_norm: number | null;
  tokens_per_second: number | null;
  peak: number;
  gpu_busy: string;
  strategy: string[];
  forecast_total: number;
  forecast_error: number;
  loss_points: DataView;
  rate_points: DataView;
  gradient_points: DataView;
  speed_points: DataView;
  memory_points: DataView;
  evaluation_points: DataView;
  messages: Said[];
  samples: Asked[];
  window: number[];
  smoothing: number;
  log_loss: boolean;
  hidden: string[];
  others: { name: string; state: string }[];
  chosen: string[];
  overlays: { name: string; points: number }[];
  overlay_points: DataView;
  differences: { path: string; title: string; values: string[] }[];
}

export type Model = AnyModel<TrainState>;

export const WORKING = ['preparing', 'running', 'paused', 'stopping'];
export const RESUMABLE = ['stopped', 'interrupted', 'failed'];

/** Set a trait of the view, so that a reload and a second tab show the same. */
export function keep<K extends keyof TrainState & string>(model: Model, name: K, value: TrainState[K]): void {
  model.set(name, value);
  model.save_changes();
}
