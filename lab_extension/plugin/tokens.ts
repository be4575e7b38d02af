/** What the plugins of the runs give each other. */

import { Token } from '@lumino/coreutils';
import type { Translator } from '../ui/run/rows.ts';
import type { Api } from './api';
import type { RunsModel } from './runs_model';

export interface IRuns {
  api: Api;
  model: RunsModel;
  trans: Translator;
}

export const IRuns = new Token<IRuns>('tunebook:IRuns', 'The fine-tuning runs below the server’s root, live.');

export const OPEN_RUN = 'tunebook:open-run';
export const ASK_RUN = 'tunebook:ask-run';
export const REVEAL_RUN = 'tunebook:reveal-run';
export const COPY_RUN_PATH = 'tunebook:copy-run-path';
export const SHOW_RUNS = 'tunebook:show-runs';
export const CATEGORY = 'Fine-tuning';
