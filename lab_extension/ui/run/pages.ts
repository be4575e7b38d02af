/** What is below a run's curves, one page a tab: what happened, samples, recipe, forecast, files. */

import { forecastBar, type Forecast } from '../bar.ts';
import { button, h } from '../dom.ts';
import { bytes } from '../format.ts';
import { codeBlock, threeParts } from '../frame.ts';
import type { Asked, Said } from '../told.ts';
import type { RecipeRow, RunContents, RunFile, RunPicture } from './picture.ts';
import type { Translator } from './rows.ts';

/** Everything that was said, the newest first, with what to do. */
export function eventsPage(run: RunPicture, trans: Translator): HTMLElement {
  if (!run.messages.length) {
    return nothing(trans.__('Nothing has happened yet.'));
  }
  const item = (said: Said): HTMLElement =>
    h(
      'li',
      { class: `tb-event tb-event-${said.kind.replace(/\W/g, '')}` },
      h('span', { class: 'tb-event-step' }, trans.__('step %1', said.step)),
      h('span', {}, said.text, said.do ? h('span', { class: 'tb-muted' }, ` ${said.do}`) : null)
    );
  return h('ol', { class: 'tb-run-events', 'aria-label': trans.__('What happened, the newest first') }, ...[...run.messages].reverse().map(item));
}

/** Answers of the model, by prompt; of each prompt the newest first. */
export function samplesPage(run: RunPicture, trans: Translator): HTMLElement {
  if (!run.samples.length) {
    return nothing(trans.__('No sample yet. The run answers a few prompts of its data as it learns, where its recipe asks for samples.'));
  }
  return h('div', { class: 'tb-run-samples' }, ...run.samples.map(asked => sampleCard(asked, trans)));
}

function sampleCard(asked: Asked, trans: Translator): HTMLElement {
  const line = (title: string, text: string): HTMLElement => h('div', { class: 'tb-run-answer' }, h('dt', {}, title), h('dd', { dir: 'auto' }, text));
  return h(
    'section',
    { class: 'tb-run-sample' },
    h('h3', { dir: 'auto' }, asked.prompt),
    h(
      'dl',
      {},
      ...(asked.expected ? [line(trans.__('Expected'), asked.expected)] : []),
      ...asked.answers.map(({ step, text }) => line(trans.__('Step %1', step), text))
    )
  );
}

/** The recipe as tables by part, what differs from the defaults marked, and as the file is. */
export function recipePage(contents: RunContents, trans: Translator): HTMLElement {
  const { recipe } = contents;
  const node = h('div', { class: 'tb-run-recipe' });
  if (recipe.error.what) {
    node.append(threeParts(recipe.error));
  }
  const row = (item: RecipeRow): HTMLElement =>
    h(
      'tr',
      { 'data-changed': item.changed, title: item.about },
      h('th', { scope: 'row' }, item.title),
      h('td', { dir: 'auto' }, item.value, item.changed ? h('span', { class: 'tb-hidden' }, ` (${trans.__('not the default')})`) : null)
    );
  const tables = recipe.groups
    .filter(group => group.rows.length)
    .map(group => h('table', {}, h('caption', {}, group.title), h('tbody', {}, ...group.rows.map(row))));
  if (tables.length) {
    node.append(h('p', { class: 'tb-muted' }, trans.__('What differs from the defaults is in bold.')), h('div', { class: 'tb-run-tables' }, ...tables));
  }
  if (recipe.text) {
    const file = codeBlock('recipe.yaml', recipe.text);
    node.append(h('details', { open: !tables.length }, h('summary', {}, trans.__('The file')), file.box));
  }
  return node;
}

/** What the run was forecast to cost. */
export function planPage(plan: Forecast | null, trans: Translator): HTMLElement {
  return plan ? forecastBar(plan) : nothing(trans.__('There is no plan to read in this folder.'));
}

/** The files of the run, each opened in JupyterLab by a click. */
export function filesPage(contents: RunContents, open: (path: string) => void, trans: Translator): HTMLElement {
  const row = (file: RunFile): HTMLElement => {
    const name = file.path.split('/').pop() ?? file.path;
    const shown = file.directory ? h('span', { class: 'tb-run-folder', dir: 'auto' }, `${name}/`) : button(name, () => open(file.path), { class: 'tb-link', dir: 'auto', title: file.path });
    const cell = h('th', { scope: 'row' }, shown);
    cell.style.paddingInlineStart = `${8 + 18 * file.depth}px`;
    return h('tr', {}, cell, h('td', {}, file.directory ? '' : bytes(file.bytes)), h('td', { class: 'tb-muted' }, when(file.modified)));
  };
  const heads = [trans.__('File'), trans.__('Size'), trans.__('Changed')].map(text => h('th', { scope: 'col' }, text));
  const table = h('table', { class: 'tb-run-files' }, h('thead', {}, h('tr', {}, ...heads)), h('tbody', {}, ...contents.files.map(row)));
  return h('div', {}, table, contents.more ? h('p', { class: 'tb-muted' }, trans.__('There are more files in this folder.')) : null);
}

function when(seconds: number): string {
  return new Date(1000 * seconds).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

function nothing(words: string): HTMLElement {
  return h('p', { class: 'tb-muted' }, words);
}
