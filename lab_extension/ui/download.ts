/** Files that the page hands to the user, and pictures of plots. */

import { h } from './dom.ts';
import { CanvasPen, SvgPen, type Pen } from './pen.ts';
import type { Plot } from './plot.ts';

const [GAP, HEAD] = [14, 22];
const SHARP = 2; // pixels of a picture for one of the page

/** Offer bytes or text as a file. */
export function download(content: BlobPart, type: string, name: string): void {
  const link = h('a', { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** All plots under each other as an SVG file. */
export function svgOf(plots: readonly Plot[], title: string): string {
  const pen = new SvgPen('system-ui, sans-serif');
  const [width, height] = stacked(plots, title, pen);
  return pen.file(width, height);
}

/** The same as a PNG, twice as sharp as the page. */
export async function pngOf(plots: readonly Plot[], title: string): Promise<Blob> {
  const canvas = h('canvas');
  const context = canvas.getContext('2d') as CanvasRenderingContext2D;
  const [width, height] = stacked(plots, title, new SvgPen('')); // the size alone
  [canvas.width, canvas.height] = [width * SHARP, height * SHARP];
  context.scale(SHARP, SHARP);
  stacked(plots, title, new CanvasPen(context, 'system-ui, sans-serif'));
  return new Promise((resolve, reject) =>
    canvas.toBlob(blob => (blob ? resolve(blob) : reject(new Error('The browser made no picture.'))), 'image/png')
  );
}

/** Draw plots under each other with a head; the size of it all. */
function stacked(plots: readonly Plot[], title: string, pen: Pen): [number, number] {
  const sizes = plots.map(plot => Math.max(plot.canvas.clientHeight, 120));
  const width = Math.max(480, ...plots.map(plot => plot.canvas.clientWidth));
  const height = sizes.reduce((sum, size) => sum + size + HEAD + GAP, HEAD + GAP);
  const first = plots[0];
  if (first) {
    const computed = getComputedStyle(first.canvas);
    const style = (name: string): string => computed.getPropertyValue(name).trim();
    pen.box(0, 0, width, height, style('--tb-surface') || '#ffffff');
    pen.text(title, [GAP, GAP + 4], { color: style('--tb-text'), bold: true });
    let top = HEAD + GAP;
    plots.forEach((plot, at) => {
      pen.text(plot.options.title, [GAP, top + HEAD / 2], { color: style('--tb-text'), bold: true });
      pen.at(0, top + HEAD, () => plot.drawOn(pen, style, width, sizes[at] as number));
      top += (sizes[at] as number) + HEAD + GAP;
    });
  }
  return [width, height];
}
