/** The Python that commands write into cells. Pure functions. */

export interface Defaults {
  /** Name of the model to begin with; empty is Tunebook's own. */
  model: string;
  /** Folder of runs, as Python sees it; empty is Tunebook's own. */
  runs: string;
}

/** A string as Python reads it; what would turn the line around on the screen is escaped. */
export function pythonText(text: string): string {
  const turning = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  return JSON.stringify(text).replace(turning, found => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** A cell with the guide. */
export function guideCode({ model, runs }: Defaults): string {
  const recipe = model ? `tunebook.Recipe.of(${pythonText(model)})` : '';
  const root = runs ? `root=${pythonText(runs)}` : '';
  return `import tunebook\n\nguide = tunebook.Guide(${[recipe, root].filter(Boolean).join(', ')})\nguide`;
}

/** A cell that shows a file as a model would learn from it. */
export function previewCode(source: string, { model }: Defaults): string {
  const named = [model && `model=${pythonText(model)}`, `data=${pythonText(source)}`].filter(Boolean);
  return `import tunebook\n\ndata = tunebook.DataPanel(tunebook.Recipe.of(${named.join(', ')}))\ndata`;
}

/** A cell that opens a run. */
export function watchCode(path: string): string {
  return `import tunebook\n\nrun = tunebook.open_run(${pythonText(path)})\ntunebook.watch(run)`;
}

/** `name` as it is, or with the first number that makes it differ from the names taken. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  const [, stem = name, ending = ''] = /^(.*?)(\.[^.]*)?$/s.exec(name) ?? [];
  let free = name;
  for (let number = 2; taken.has(free); number += 1) {
    free = `${stem} ${number}${ending}`;
  }
  return free;
}
