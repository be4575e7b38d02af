/** Numbers as a person reads them, and the ticks of an axis. Pure functions. */

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1536` as "1.5 KiB". */
export function bytes(count: number): string {
  let size = count;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < BYTE_UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${size.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/** Seconds as "45 s", "3 min 20 s" or "2 h 5 min". */
export function duration(seconds: number): string {
  if (seconds < 1) {
    return 'under a second';
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) {
    return minutes < 10 && whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  }
  const rest = minutes % 60;
  return rest ? `${Math.floor(minutes / 60)} h ${rest} min` : `${Math.floor(minutes / 60)} h`;
}

/** Seconds of one step as "83 ms", "1.4 s" or "3 min 20 s". */
export function stepTime(seconds: number): string {
  if (seconds < 0.9995) {
    return `${Number((seconds * 1000).toPrecision(2))} ms`;
  }
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

/** `1235814400` as "1.24 B", `41943040` as "41.9 M", `3072` as "3,072". */
export function compact(value: number): string {
  for (const [size, unit] of [[1e9, ' B'], [1e6, ' M'], [1e4, ' k']] as const) {
    if (value >= size) {
      const scaled = value / (size === 1e4 ? 1e3 : size);
      return `${scaled.toFixed(scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2)}${unit}`;
    }
  }
  return count(value);
}

/** A share as "0.52 %" in two figures, "under 0.01 %" where it is less. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value > 0 && value < 0.01) {
    return 'under 0.01 %';
  }
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} %`;
}

/** A number in four figures: 0.0123, 1.254, 340, 12,400. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) {
    return String(value);
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return value.toExponential(2);
  }
  if (size >= 100) {
    return Math.round(value).toLocaleString('en');
  }
  return Number(value.toPrecision(4)).toString();
}

/** Whole numbers with separators. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en');
}

/**
 * Round tick values that cover [low, high] from the inside.
 *
 * @param most - no more ticks than this
 * @param base - 10, or 1024 for bytes (ticks at 1, 2, 4, ... times a power of 1024)
 */
export function ticks(low: number, high: number, most: number, base: 10 | 1024 = 10): number[] {
  if (!(high > low) || most < 1) {
    return Number.isFinite(low) ? [low] : [];
  }
  const step = base === 10 ? decimalStep((high - low) / most) : binaryStep((high - low) / most);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function decimalStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find(item => item * power >= rough * (1 - 1e-9)) ?? 10;
  return factor * power;
}

function binaryStep(rough: number): number {
  return 2 ** Math.ceil(Math.log2(rough) - 1e-9);
}

/** A tick's label, with as many decimals as its step needs. */
export function tickLabel(value: number, step: number): string {
  const size = Math.abs(value);
  if (size >= 1e5 || (step > 0 && step < 1e-4)) {
    return value === 0 ? '0' : value.toExponential(1);
  }
  const decimals = step > 0 ? Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)) : 2;
  return value.toFixed(decimals);
}

/** float32 columns out of a byte trait: all x first, then each series. */
export function columns(data: DataView | ArrayBuffer | null | undefined, width: number): Float32Array[] {
  if (!data || data.byteLength === 0) {
    return Array.from({ length: width }, () => new Float32Array(0));
  }
  const bytesOf =
    data instanceof ArrayBuffer ? data.slice(0) : data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  const all = new Float32Array(bytesOf as ArrayBuffer);
  const length = Math.floor(all.length / width);
  return Array.from({ length: width }, (_, at) => all.subarray(at * length, (at + 1) * length));
}

/** The index of the value nearest to `x` in an ascending column; -1 if it is empty. */
export function nearest(column: ArrayLike<number>, x: number): number {
  let low = 0;
  let high = column.length - 1;
  if (high < 0) {
    return -1;
  }
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((column[middle] as number) <= x) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return x - (column[low] as number) <= (column[high] as number) - x ? low : high;
}
