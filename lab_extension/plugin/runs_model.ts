/** What every view of the runs shares: one poller, its last answer, and the news of ends. */

import { Poll } from '@lumino/polling';
import { Signal } from '@lumino/signaling';
import type { ThreePartError } from '../ui/model.ts';
import { endedSince, isLive, type Gpu, type RunRow, type Translator } from '../ui/run/rows.ts';
import { ApiError, parts, type Api, type RunList } from './api';

const IDLE_FACTOR = 3; // no run is live: ask more seldom
const LONGEST = 60_000; // milliseconds between two questions to a server that does not answer

export class RunsModel {
  readonly changed = new Signal<this, void>(this);
  /** Runs that were seen live, by any page of this browser, and have ended now. */
  readonly ended = new Signal<this, RunRow[]>(this);
  rows: readonly RunRow[] = [];
  more = 0;
  partial = false;
  gpus: readonly Gpu[] | null = null;
  problem: ThreePartError | null = null;
  /** Whether the server has answered once. */
  ready = false;
  #api: Api;
  #trans: Translator;
  #poll: Poll;
  #interval = 2000;
  #withoutGpu = false;
  #list: RunList | null = null;

  constructor(api: Api, trans: Translator) {
    this.#api = api;
    this.#trans = trans;
    this.#poll = new Poll({
      auto: false,
      name: 'tunebook:runs',
      factory: () => this.#ask(),
      frequency: this.#frequency(),
      standby: 'when-hidden'
    });
  }

  /** Begin to ask, at most every so many milliseconds. */
  start(interval: number): void {
    this.#interval = interval;
    this.#poll.frequency = this.#frequency();
    void this.#poll.start();
  }

  /** Ask now, also where nothing was found before. */
  refresh = async (): Promise<void> => {
    this.#withoutGpu = false;
    await this.#poll.refresh();
  };

  /** The run at a path, if it is listed. */
  at(path: string): RunRow | undefined {
    return this.rows.find(row => row.path === path);
  }

  async #ask(): Promise<void> {
    try {
      const [list, gpus] = await Promise.all([this.#api.runs(), this.#withoutGpu ? null : this.#api.gpus()]);
      this.#withoutGpu = gpus === null;
      this.#take(list, gpus);
    } catch (error) {
      this.problem = parts(error, this.#trans);
      this.ready = true;
      this.changed.emit();
      if (error instanceof ApiError && error.missing) {
        void this.#poll.stop(); // it will not be there before somebody installs it and asks again
        return;
      }
      throw error; // the poll asks more and more seldom
    }
  }

  #take(list: RunList, gpus: readonly Gpu[] | null): void {
    const same = this.ready && !this.problem && list === this.#list && gpus === this.gpus;
    this.#list = list;
    [this.rows, this.more, this.partial] = [list.runs, list.more, list.partial];
    [this.gpus, this.problem, this.ready] = [gpus, null, true];
    if (!same) {
      void this.#tellEnds();
      this.#setPace();
      this.changed.emit();
    }
  }

  #setPace(): void {
    const wanted = this.#frequency();
    if (wanted.interval !== this.#poll.frequency.interval) {
      this.#poll.frequency = wanted;
    }
  }

  #frequency(): { interval: number; backoff: boolean; max: number } {
    const live = this.rows.some(row => isLive(row.state));
    return { interval: live ? this.#interval : IDLE_FACTOR * this.#interval, backoff: true, max: LONGEST };
  }

  /** Of several pages in this browser the first to see an end tells it; a reload forgets none. */
  async #tellEnds(): Promise<void> {
    await inTurn(() => {
      const key = `tunebook:live:${this.#api.server}`;
      const seen = endedSince(stored(key), this.rows);
      store(key, seen.live);
      if (seen.ended.length) {
        this.ended.emit(seen.ended);
      }
    });
  }
}

/** One page after the other, where the browser can do that (not on a plain http address). */
async function inTurn(action: () => void): Promise<void> {
  await (navigator.locks ? navigator.locks.request('tunebook:ends', action) : action());
}

function stored(key: string): string[] {
  try {
    const value: unknown = JSON.parse(window.localStorage.getItem(key) ?? '[]');
    return Array.isArray(value) ? value.map(String) : [];
  } catch {
    return []; // storage is blocked in this browser
  }
}

function store(key: string, paths: string[]): void {
  try {
    window.localStorage.setItem(key, JSON.stringify(paths));
  } catch {
    // blocked or full: ends are told by every page, and not after a reload
  }
}
