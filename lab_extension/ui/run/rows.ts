/** Runs as the server lists them, and what is said of them. Pure functions; no page, no server. */

import { bytes, count, duration, figure } from '../format.ts';
import type { ThreePartError } from '../model.ts';

/** The little of JupyterLab's translation bundle that is used. */
export interface Translator {
  __(text: string, ...values: unknown[]): string;
  _n(text: string, plural: string, number: number, ...values: unknown[]): string;
}

export interface RunRow {
  /** Relative to the server's root, with forward slashes. */
  path: string;
  name: string;
  state: string;
  /** What is asked of it and not done yet. */
  requests: string[];
  /** Its log is long and has not been read to the end yet. */
  reading: boolean;
  step: number;
  total: number;
  loss: number | null;
  first_loss: number | null;
  eta: number | null;
  seconds: number;
  peak: number;
  began: number;
  updated: number;
  device: string;
  host: string;
  failure: ThreePartError;
  curve: number[];
}

export interface Gpu {
  index: number | null;
  name: string;
  used: number | null;
  total: number | null;
  busy: number | null;
}

const UNFINISHED = ['stopped', 'interrupted', 'failed'];
const RESTING = ['new', 'completed', ...UNFINISHED];

/** Whether a process works on a run in this state. */
export function isLive(state: string): boolean {
  return !RESTING.includes(state);
}

/** Whether a run in this state can be continued from its last checkpoint. */
export function isUnfinished(state: string): boolean {
  return UNFINISHED.includes(state);
}

/** What can be asked of a live run, in the order in which it is offered. */
export const WISHES = ['pause', 'continue', 'save', 'sample', 'stop'] as const;
export type Wish = (typeof WISHES)[number];

/** Whether a run can be asked for something now. */
export function accepts(run: { state: string; requests: string[] } | undefined, wish: Wish): boolean {
  if (!run || !isLive(run.state) || run.state === 'stopping') {
    return false;
  }
  const held = run.state === 'paused' || run.requests.includes('pause');
  return wish === 'stop' || (wish === 'pause' ? !held : wish === 'continue' ? held && run.requests.includes('pause') : !run.requests.includes(wish));
}

/** What a request is called, and what it does. */
export function wishWords(wish: Wish, trans: Translator): { label: string; about: string } {
  const words: Record<Wish, [string, string]> = {
    pause: [trans.__('Pause'), trans.__('Rest after this step; the model stays in memory')],
    continue: [trans.__('Continue'), trans.__('Go on with the next step')],
    save: [trans.__('Save now'), trans.__('Write a checkpoint after this step')],
    sample: [trans.__('Ask now'), trans.__('Let the model answer the sample prompts after this step')],
    stop: [trans.__('Stop'), trans.__('End after this step in good order, with a checkpoint from which it can be resumed')]
  };
  const [label, about] = words[wish];
  return { label, about };
}

/** The state, or what it is about to become. */
export function stateOf(run: { state: string; requests: string[] }): string {
  return run.state === 'running' && run.requests.includes('pause') ? 'pausing' : run.state;
}

/** A state as a word. */
export function stateWord(state: string, trans: Translator): string {
  const words: Record<string, string> = {
    new: trans.__('New'),
    preparing: trans.__('Preparing'),
    running: trans.__('Running'),
    pausing: trans.__('Pausing'),
    paused: trans.__('Paused'),
    stopping: trans.__('Stopping'),
    completed: trans.__('Completed'),
    stopped: trans.__('Stopped'),
    failed: trans.__('Failed'),
    interrupted: trans.__('Interrupted')
  };
  return words[state] ?? state;
}

/** "Running · step 120 of 400". */
export function progressWords(row: RunRow, trans: Translator): string {
  const words = [stateWord(stateOf(row), trans)];
  if (row.reading) {
    words.push(trans.__('reading its log …'));
  } else if (row.total) {
    words.push(trans.__('step %1 of %2', count(row.step), count(row.total)));
  }
  return words.join(' · ');
}

/** "12 min left · loss 1.23 · 5.1 GiB", or when it was; the memory is the peak. */
export function factWords(row: RunRow, now: number, trans: Translator): string {
  const words = [
    row.eta === null ? '' : trans.__('%1 left', duration(row.eta)),
    row.loss === null ? '' : trans.__('loss %1', figure(row.loss)),
    row.peak ? bytes(row.peak) : '',
    isLive(row.state) ? '' : agoWords(now - row.updated, trans)
  ];
  return words.filter(Boolean).join(' · ');
}

/** "3 min ago"; days from the second on. */
export function agoWords(seconds: number, trans: Translator): string {
  const days = Math.floor(seconds / 86_400);
  if (seconds < 60) {
    return trans.__('just now');
  }
  if (days >= 2) {
    return trans.__('%1 days ago', count(days));
  }
  return trans.__('%1 ago', seconds < 3600 ? duration(60 * Math.floor(seconds / 60)) : `${Math.floor(seconds / 3600)} h`);
}

/** Whether every word typed is in the name, the path or the state. */
export function matches(row: RunRow, typed: string, trans: Translator): boolean {
  const text = `${row.path} ${row.state} ${stateWord(row.state, trans)}`.toLowerCase();
  return typed.toLowerCase().split(/\s+/).every(word => text.includes(word));
}

/** The live run that began last. */
export function newestLive(rows: readonly RunRow[]): RunRow | undefined {
  return rows.filter(row => isLive(row.state)).reduce<RunRow | undefined>((best, row) => (best && best.began >= row.began ? best : row), undefined);
}

/**
 * Which runs have ended since the page, or another one of this browser, saw them live.
 *
 * @param live - paths of the runs seen live before
 * @returns the runs that ended, and the paths to remember
 */
export function endedSince(live: readonly string[], rows: readonly RunRow[]): { ended: RunRow[]; live: string[] } {
  const known = new Set(live);
  return {
    ended: rows.filter(row => known.has(row.path) && !isLive(row.state) && !row.reading),
    live: rows.filter(row => isLive(row.state) || (row.reading && known.has(row.path))).map(row => row.path)
  };
}

/** An SVG path through values spread evenly over a width, the largest on top. */
export function sparkline(values: readonly number[], width: number, height: number): string {
  if (values.length < 2) {
    return '';
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const across = (at: number): string => ((at / (values.length - 1)) * width).toFixed(1);
  const down = (value: number): string => (high > low ? ((high - value) / (high - low)) * height : height / 2).toFixed(1);
  return values.map((value, at) => `${at ? 'L' : 'M'}${across(at)} ${down(value)}`).join('');
}

/** Bytes in use and in all, over every GPU that tells both; null where none does. */
export function gpuMemory(gpus: readonly Gpu[] | null): { used: number; total: number } | null {
  const told = (gpus ?? []).filter(gpu => gpu.used !== null && gpu.total !== null);
  if (!told.length) {
    return null;
  }
  const sum = (key: 'used' | 'total'): number => told.reduce((all, gpu) => all + (gpu[key] ?? 0), 0);
  return { used: sum('used'), total: sum('total') };
}
