/** The arithmetic of the histogram of lengths: its axis, its ticks, the limit under a pointer. Pure. */

import { ticks } from '../format.ts';
import type { Lengths, Stop } from './state.ts';

export class Axis {
  readonly low: number;
  readonly high: number;
  readonly logarithmic: boolean;
  readonly stops: readonly Stop[];

  constructor(lengths: Lengths) {
    const { bins = [], stops = [], logarithmic = false } = lengths;
    const last = stops.at(-1)?.[0] ?? 1;
    this.stops = stops;
    this.logarithmic = logarithmic;
    this.low = logarithmic ? Math.max(1, Math.min(stops[0]?.[0] ?? 1, bins[0]?.[0] ?? 1)) : 0;
    this.high = Math.max(this.low + 1, last, bins.at(-1)?.[1] ?? 1);
  }

  /** Where a length stands, from 0 to 1. */
  place(length: number): number {
    const share = this.logarithmic ? Math.log(Math.max(length, this.low) / this.low) / Math.log(this.high / this.low) : length / this.high;
    return Math.min(1, Math.max(0, share));
  }

  /** The number of the stop nearest to a place. */
  nearest(place: number): number {
    let best = 0;
    this.stops.forEach(([limit], at) => {
      if (Math.abs(this.place(limit) - place) < Math.abs(this.place(this.stops[best]?.[0] ?? 0) - place)) {
        best = at;
      }
    });
    return best;
  }

  /** The number of the stop of a limit, or of the last one below it. */
  stop(limit: number): number {
    const above = this.stops.findIndex(stop => stop[0] > limit);
    return above < 0 ? this.stops.length - 1 : Math.max(0, above - 1);
  }

  ticks(): number[] {
    if (!this.logarithmic) {
      return ticks(0, this.high, 6);
    }
    const steps = Math.log2(this.high / this.low) > 8 ? 4 : 2;
    const found: number[] = [];
    for (let at = 1; at <= this.high; at *= steps) {
      if (at >= this.low) {
        found.push(at);
      }
    }
    return found;
  }
}

/** The limit that a key asks for, as a number of a stop; undefined for other keys. */
export function keyedStop(key: string, at: number, last: number): number | undefined {
  const moves: Record<string, number> = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: last };
  const to = moves[key];
  return to === undefined ? undefined : Math.min(last, Math.max(0, to));
}

/** A share in words: "0 %", "under 0.1 %", "2.5 %", "31 %". */
export function share(part: number, whole: number): string {
  const percent = whole ? (100 * part) / whole : 0;
  return percent === 0 ? '0 %' : percent < 0.1 ? 'under 0.1 %' : percent < 10 ? `${percent.toFixed(1)} %` : `${Math.round(percent)} %`;
}
