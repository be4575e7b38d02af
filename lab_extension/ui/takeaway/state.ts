/** What the take-away panel shows. */

import type { AnyModel, PanelState } from '../model.ts';

export interface Form {
  name: string;
  title: string;
  description: string;
  size: string;
}

export interface Written {
  path: string;
  size: string;
  form: string;
  title: string;
  verified: { ok?: boolean; summary?: string };
  usage: [title: string, code: string][];
}

export interface TakeAwayState extends PanelState {
  formats: Form[];
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
