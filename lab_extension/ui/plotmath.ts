/** The arithmetic of a plot: scales, ranges, zoom, smoothing. Pure functions. */

import { ticks } from './format.ts';

export type Range = readonly [number, number];

export interface Scale {
  low: number;
  high: number;
  log: boolean;
}

/** Where a value lies between the ends of a scale, 0 to 1. */
export function share(scale: Scale, value: number): number {
  if (scale.log) {
    return (Math.log(value) - Math.log(scale.low)) / (Math.log(scale.high) - Math.log(scale.low));
  }
  return (value - scale.low) / (scale.high - scale.low);
}

/** Ticks of a scale: round numbers, or 1, 2 and 5 times powers of ten where it is logarithmic. */
export function scaleTicks(scale: Scale, most: number, base: 10 | 1024 = 10): number[] {
  if (!scale.log) {
    return ticks(scale.low, scale.high, most, base);
  }
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const found = logTicks(scale, factors);
    if (found.length <= most || factors.length === 1) {
      const every = Math.ceil(found.length / most);
      return found.length >= 2 ? found.filter((_, at) => at % every === 0) : ticks(scale.low, scale.high, most);
    }
  }
  return [];
}

function logTicks(scale: Scale, factors: number[]): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(scale.low)); power <= Math.ceil(Math.log10(scale.high)); power += 1) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(1));
      if (value >= scale.low * (1 - 1e-9) && value <= scale.high * (1 + 1e-9)) {
        found.push(value);
      }
    }
  }
  return found;
}

/** The scale that holds `values` with some room; from zero, or logarithmic where it can be. */
export function scaleOf(low: number, high: number, options: { fromZero?: boolean; log?: boolean } = {}): Scale {
  if (!(low <= high)) {
    return { low: 0, high: 1, log: false };
  }
  if (options.log && low > 0) {
    const room = Math.max((high / low) ** 0.06, 1.02);
    return { low: low / room, high: high * room, log: true };
  }
  const floor = options.fromZero ? Math.min(0, low) : low;
  const room = 0.06 * (high - floor || Math.abs(high) || 1);
  const bottom = options.fromZero ? floor : Math.max(floor - room, low >= 0 ? 0 : -Infinity);
  return { low: bottom, high: high + room, log: false };
}

/** A range made `factor` times as wide about `at`, kept within the whole; null when it is the whole. */
export function zoomed(range: Range, factor: number, at: number, whole: Range, least = 4): Range | null {
  const width = Math.max(least, (range[1] - range[0]) * factor);
  if (width >= whole[1] - whole[0]) {
    return null;
  }
  const left = range[1] > range[0] ? (at - range[0]) / (range[1] - range[0]) : 0.5;
  return moved([at - left * width, at + (1 - left) * width], 0, whole);
}

/** A range moved by `step`, kept within the whole. */
export function moved(range: Range, step: number, whole: Range): Range {
  const width = range[1] - range[0];
  const low = Math.min(Math.max(range[0] + step, whole[0]), whole[1] - width);
  return [low, low + width];
}

/**
 * The smoothed curve of points that each stand for `counts` steps with mean `means`.
 *
 * The exponential mean with weight `smoothing` on the past, and the plain mean while steps are few:
 * the same as `tunebook.curves.smooth` where every step is there.
 */
export function smooth(means: ArrayLike<number>, counts: ArrayLike<number>, smoothing: number): Float32Array {
  const out = new Float32Array(means.length);
  let [mean, seen] = [NaN, 0];
  for (let at = 0; at < means.length; at += 1) {
    const [value, count] = [means[at] as number, counts[at] as number];
    if (count > 0 && Number.isFinite(value)) {
      const kept = seen === 0 ? 0 : Math.min(smoothing ** count, seen / (seen + count));
      mean = kept === 0 ? value : kept * mean + (1 - kept) * value;
      seen += count;
    }
    out[at] = mean;
  }
  return out;
}
