/** Two ways to draw the same plot: on a canvas, and as the text of an SVG file. */

export type Point = readonly [number, number];

export interface Stroke {
  color: string;
  width: number;
  dash?: readonly number[];
}

export interface Words {
  color: string;
  align?: 'left' | 'center' | 'right';
  baseline?: 'top' | 'middle' | 'bottom';
  bold?: boolean;
}

export interface Pen {
  line(points: readonly Point[], stroke: Stroke): void;
  dot(at: Point, radius: number, color: string): void;
  /** A filled rectangle; `opacity` 0 to 1. */
  box(left: number, top: number, width: number, height: number, color: string, opacity?: number): void;
  text(text: string, at: Point, words: Words): void;
  textWidth(text: string): number;
  /** Draw with nothing outside of the rectangle. */
  within(left: number, top: number, width: number, height: number, draw: () => void): void;
  /** Draw with the origin moved. */
  at(left: number, top: number, draw: () => void): void;
}

export const FONT_SIZE = 11;

export class CanvasPen implements Pen {
  #context: CanvasRenderingContext2D;
  #family: string;

  constructor(context: CanvasRenderingContext2D, family: string) {
    this.#context = context;
    this.#family = family;
    this.#font(false);
  }

  line(points: readonly Point[], stroke: Stroke): void {
    const context = this.#context;
    context.strokeStyle = stroke.color;
    context.lineWidth = stroke.width;
    context.lineJoin = 'round';
    context.setLineDash([...(stroke.dash ?? [])]);
    context.beginPath();
    points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }

  dot([x, y]: Point, radius: number, color: string): void {
    this.#context.fillStyle = color;
    this.#context.beginPath();
    this.#context.arc(x, y, radius, 0, 2 * Math.PI);
    this.#context.fill();
  }

  box(left: number, top: number, width: number, height: number, color: string, opacity = 1): void {
    this.#context.globalAlpha = opacity;
    this.#context.fillStyle = color;
    this.#context.fillRect(left, top, width, height);
    this.#context.globalAlpha = 1;
  }

  text(text: string, [x, y]: Point, words: Words): void {
    this.#font(words.bold ?? false);
    this.#context.fillStyle = words.color;
    this.#context.textAlign = words.align ?? 'left';
    this.#context.textBaseline = words.baseline ?? 'middle';
    this.#context.fillText(text, x, y);
  }

  textWidth(text: string): number {
    this.#font(false);
    return this.#context.measureText(text).width;
  }

  within(left: number, top: number, width: number, height: number, draw: () => void): void {
    this.#context.save();
    this.#context.beginPath();
    this.#context.rect(left, top, width, height);
    this.#context.clip();
    draw();
    this.#context.restore();
  }

  at(left: number, top: number, draw: () => void): void {
    this.#context.save();
    this.#context.translate(left, top);
    draw();
    this.#context.restore();
  }

  #font(bold: boolean): void {
    this.#context.font = `${bold ? '600 12' : FONT_SIZE}px ${this.#family}`;
  }
}

export class SvgPen implements Pen {
  #parts: string[] = [];
  #family: string;
  #clips = 0;

  constructor(family: string) {
    this.#family = family;
  }

  /** The whole file. */
  file(width: number, height: number): string {
    const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="${escaped(this.#family)}">`;
    return [head, ...this.#parts, '</svg>\n'].join('\n');
  }

  line(points: readonly Point[], stroke: Stroke): void {
    const path = points.map(([x, y]) => `${short(x)},${short(y)}`).join(' ');
    const dash = stroke.dash?.length ? ` stroke-dasharray="${stroke.dash.join(' ')}"` : '';
    this.#parts.push(
      `<polyline points="${path}" fill="none" stroke="${escaped(stroke.color)}" stroke-width="${stroke.width}" stroke-linejoin="round"${dash}/>`
    );
  }

  dot([x, y]: Point, radius: number, color: string): void {
    this.#parts.push(`<circle cx="${short(x)}" cy="${short(y)}" r="${radius}" fill="${escaped(color)}"/>`);
  }

  box(left: number, top: number, width: number, height: number, color: string, opacity = 1): void {
    this.#parts.push(
      `<rect x="${short(left)}" y="${short(top)}" width="${short(width)}" height="${short(height)}" fill="${escaped(color)}" fill-opacity="${opacity}"/>`
    );
  }

  text(text: string, [x, y]: Point, words: Words): void {
    const anchor = { left: 'start', center: 'middle', right: 'end' }[words.align ?? 'left'];
    const shift = { top: FONT_SIZE - 2, middle: 4, bottom: -2 }[words.baseline ?? 'middle'];
    const weight = words.bold ? ' font-weight="600" font-size="12"' : ` font-size="${FONT_SIZE}"`;
    this.#parts.push(
      `<text x="${short(x)}" y="${short(y + shift)}" text-anchor="${anchor}" fill="${escaped(words.color)}"${weight}>${escaped(text)}</text>`
    );
  }

  /** About what the letters take; a file is laid out before anybody renders it. */
  textWidth(text: string): number {
    return 0.58 * FONT_SIZE * text.length;
  }

  within(left: number, top: number, width: number, height: number, draw: () => void): void {
    const id = `clip${(this.#clips += 1)}`;
    this.#parts.push(
      `<clipPath id="${id}"><rect x="${short(left)}" y="${short(top)}" width="${short(width)}" height="${short(height)}"/></clipPath><g clip-path="url(#${id})">`
    );
    draw();
    this.#parts.push('</g>');
  }

  at(left: number, top: number, draw: () => void): void {
    this.#parts.push(`<g transform="translate(${short(left)} ${short(top)})">`);
    draw();
    this.#parts.push('</g>');
  }
}

function short(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escaped(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  // characters that XML cannot hold at all
  const held = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd');
  return held.trim().replace(/[&<>"]/g, mark => names[mark] as string);
}
