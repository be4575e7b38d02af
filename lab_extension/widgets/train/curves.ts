/** The live curves with their tools: smoothing, scale, zoom, files. */

import { button, freshId, h, setText, toggle } from '../../ui/dom.ts';
import { download, pngOf, svgOf } from '../../ui/download.ts';
import { bytes, columns, count, figure } from '../../ui/format.ts';
import { follow, type Cleanup } from '../../ui/model.ts';
import { Plot, type Line } from '../../ui/plot.ts';
import { PlotGroup } from '../../ui/plotgroup.ts';
import { smooth } from '../../ui/plotmath.ts';
import { keep, type Model } from './state.ts';

const COLORS = ['--tb-series-3', '--tb-series-4', '--tb-series-2', '--tb-series-1'];
const DASHES: readonly (readonly number[])[] = [[7, 3], [2, 3], [9, 3, 2, 3], [4, 4]];
const MOST_SMOOTHING = 0.995;

type Columns = [Float32Array, Float32Array, Float32Array, Float32Array];

export function curves(model: Model, cleanup: Cleanup): HTMLElement {
  const group = new PlotGroup(window => keep(model, 'window', window ? [...window] : []), cleanup);
  const onToggle = (name: string): void => {
    const hidden = model.get('hidden');
    keep(model, 'hidden', hidden.includes(name) ? hidden.filter(item => item !== name) : [...hidden, name]);
  };
  const plots = {
    loss: new Plot({ name: 'loss', title: 'Loss', format: figure }, group, cleanup, onToggle),
    rate: new Plot({ name: 'rate', title: 'Learning rate', format: figure, small: true, fromZero: true }, group, cleanup),
    gradient: new Plot({ name: 'gradient', title: 'Gradient norm', format: figure, small: true, fromZero: true }, group, cleanup),
    speed: new Plot({ name: 'speed', title: 'Tokens a second', format: count, tick: tokenTick, small: true, fromZero: true }, group, cleanup),
    memory: new Plot(
      { name: 'memory', title: 'Memory', format: bytes, tick: bytes, base: 1024, small: true, fromZero: true },
      group,
      cleanup,
      onToggle
    )
  };
  plots.loss.node.insertBefore(tools(model, group, cleanup), plots.loss.stage);
  const small = h('div', { class: 'tb-small-plots' }, plots.rate.node, plots.gradient.node, plots.speed.node, plots.memory.node);
  const node = h('div', { class: 'tb-plots' }, plots.loss.node, small);
  const draw = (): void => {
    const hidden = new Set(model.get('hidden'));
    plots.loss.setData(lossLines(model), { hidden, log: model.get('log_loss') });
    plots.rate.setData([line('learning rate', '--tb-series-4', columns(model.get('rate_points'), 2))]);
    plots.gradient.setData([line('gradient norm', '--tb-series-2', columns(model.get('gradient_points'), 2), 1)]);
    plots.speed.setData([line('tokens a second', '--tb-series-3', columns(model.get('speed_points'), 2))]);
    drawMemory(model, plots.memory, hidden);
    const window = model.get('window');
    group.show(window.length === 2 ? [window[0] as number, window[1] as number] : null);
    toggle(node, model.get('state') !== 'new' || model.get('loss_points').byteLength > 0);
  };
  follow(
    model,
    [
      ...(['loss_points', 'rate_points', 'gradient_points', 'speed_points', 'memory_points', 'evaluation_points'] as const),
      ...(['overlay_points', 'forecast_total', 'state', 'window', 'smoothing', 'log_loss', 'hidden', 'overlays'] as const)
    ],
    draw,
    cleanup
  );
  return node;
}

function line(name: string, color: string, [x, y]: Float32Array[], width = 1.5): Line {
  return { name, color, width, x: x as Float32Array, y: y as Float32Array };
}

function tokenTick(value: number): string {
  return value >= 10_000 ? `${Number((value / 1000).toPrecision(3))}k` : count(value);
}

/** Loss, smoothed loss and evaluation; then the smoothed losses of other runs, each unlike the others. */
function lossLines(model: Model): Line[] {
  const smoothing = model.get('smoothing');
  const [x, raw, means, counts] = columns(model.get('loss_points'), 4) as Columns;
  const lines: Line[] = [
    { name: 'loss', color: '--tb-series-pale', width: 1, x, y: raw },
    { name: 'smoothed', color: '--tb-series-1', width: 2, x, y: smooth(means, counts, smoothing) },
    { ...line('evaluation', '--tb-series-2', columns(model.get('evaluation_points'), 2)), marks: true }
  ];
  let offset = 0;
  const all = model.get('overlay_points');
  model.get('overlays').forEach(({ name, points }, at) => {
    const size = 16 * points;
    if (all && offset + size <= all.byteLength) {
      const part = new DataView(all.buffer, all.byteOffset + offset, size);
      const [ox, , om, on] = columns(part, 4) as Columns;
      const color = COLORS[at % COLORS.length] as string;
      const dash = DASHES[Math.floor(at / COLORS.length) % DASHES.length] as readonly number[];
      lines.push({ name, color, dash, width: 1.5, x: ox, y: smooth(om, on, smoothing) });
    }
    offset += size;
  });
  return lines;
}

function drawMemory(model: Model, plot: Plot, hidden: ReadonlySet<string>): void {
  const [x, now, peak] = columns(model.get('memory_points'), 3) as [Float32Array, Float32Array, Float32Array];
  const [total, error] = [model.get('forecast_total'), model.get('forecast_error')];
  const label = `forecast ${bytes(total)} ± ${Math.round(100 * error)} %`;
  const band = total ? { value: total, low: total * (1 - error), high: total * (1 + error), label } : null;
  const lines: Line[] = [
    { name: 'now', color: '--tb-series-3', width: 1.5, x, y: now },
    { name: 'peak', color: '--tb-series-4', width: 1.5, dash: [4, 3], x, y: peak }
  ];
  plot.setData(lines, { hidden, band });
}

function tools(model: Model, group: PlotGroup, cleanup: Cleanup): HTMLElement {
  const id = freshId('smoothing');
  const slider = h('input', { type: 'range', id, min: 0, max: MOST_SMOOTHING, step: 0.005, class: 'tb-slider' });
  const shown = h('span', { class: 'tb-slider-value' });
  slider.addEventListener('input', () => keep(model, 'smoothing', Number(slider.value)));
  const log = h('input', { type: 'checkbox', class: 'tb-check' });
  log.addEventListener('change', () => keep(model, 'log_loss', log.checked));
  const reset = button('Show everything', () => group.reset(), { class: 'tb-button tb-small', 'data-do': 'reset' });
  const node = h(
    'div',
    { class: 'tb-plot-tools' },
    h('label', { for: id, class: 'tb-muted' }, 'Smoothing'),
    slider,
    shown,
    h('label', { class: 'tb-check-label' }, log, 'Log scale'),
    reset,
    h('span', { class: 'tb-plot-help tb-muted' }, 'Drag to zoom, or Ctrl and the wheel'),
    files(model, group, cleanup)
  );
  const draw = (): void => {
    slider.value = String(model.get('smoothing'));
    slider.setAttribute('aria-valuetext', smoothingWords(model.get('smoothing')));
    setText(shown, smoothingWords(model.get('smoothing')));
    log.checked = model.get('log_loss');
    toggle(reset, model.get('window').length === 2);
    toggle(node.querySelector('.tb-plot-help') as HTMLElement, model.get('window').length !== 2);
  };
  follow(model, ['smoothing', 'log_loss', 'window'], draw, cleanup);
  return node;
}

/** Over how many steps a smoothed value looks back. */
function smoothingWords(smoothing: number): string {
  return smoothing === 0 ? 'off' : `${Math.round(1 / (1 - smoothing))} steps`;
}

/** Pictures from what is drawn; the table from Python, which has every step. */
function files(model: Model, group: PlotGroup, cleanup: Cleanup): HTMLElement {
  const name = (): string => model.get('run_name') || 'run';
  const save = (kind: string, act: () => void): HTMLButtonElement =>
    button(kind, act, { class: 'tb-button tb-small tb-quiet', 'data-do': kind.toLowerCase(), 'aria-label': `Save as ${kind}` });
  const drawn = (): readonly Plot[] => group.plots.filter(plot => plot.extent[0] <= plot.extent[1]);
  const received = (content: unknown, buffers?: DataView[]): void => {
    const { type, name: file } = content as { type?: string; name?: string };
    const table = buffers?.[0];
    if (type === 'csv' && table) {
      download(new Uint8Array(table.buffer as ArrayBuffer, table.byteOffset, table.byteLength), 'text/csv', file ?? 'run.csv');
    }
  };
  const heard = received as unknown as () => void;
  model.on('msg:custom', heard);
  cleanup.add(() => model.off('msg:custom', heard));
  return h(
    'span',
    { class: 'tb-files-buttons', role: 'group', 'aria-label': 'Save the curves' },
    save('PNG', () => void pngOf(drawn(), name()).then(blob => download(blob, 'image/png', `${name()}.png`))),
    save('SVG', () => download(svgOf(drawn(), name()), 'image/svg+xml', `${name()}.svg`)),
    save('CSV', () => model.send({ type: 'csv' }))
  );
}
