/** Notebooks that commands write: a name that is free, a Python kernel, a first cell that runs at once. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PageConfig, PathExt } from '@jupyterlab/coreutils';
import { type INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';
import { freeName } from './code.ts';

export interface NewNotebook {
  folder: string;
  /** Wished name; numbered where it is taken. */
  name: string;
  content: { cells: unknown[]; metadata: object; nbformat: number; nbformat_minor: number };
  /** A cell of it that runs as soon as the notebook is open. */
  run?: string;
  /** Open the notebook of this name instead of another one if it begins with the very cell to run. */
  again?: boolean;
}

interface Wish {
  path: string;
  code: string;
  until: number;
}

const PATIENCE = 60_000; // milliseconds for a notebook to open

/** A notebook of one code cell. */
export function oneCell(source: string): NewNotebook['content'] {
  const id = crypto.getRandomValues(new Uint32Array(1))[0]?.toString(16) ?? '1';
  const cell = { cell_type: 'code', id, metadata: {}, execution_count: null, outputs: [], source };
  return { cells: [cell], metadata: {}, nbformat: 4, nbformat_minor: 5 };
}

/** Write a notebook and open it: in this page, or where each document has a page of its own, there. */
export async function openNew(app: JupyterFrontEnd, wanted: NewNotebook): Promise<unknown> {
  const contents = app.serviceManager.contents;
  const taken = new Set(await names(contents, wanted.folder));
  let path = join(contents, wanted.folder, wanted.name);
  if (!(wanted.again && taken.has(wanted.name) && (await beginsWith(contents, path, wanted.run)))) {
    path = join(contents, wanted.folder, freeName(wanted.name, taken));
    const content = { ...wanted.content, metadata: { ...wanted.content.metadata, ...(await kernel(app)) } };
    await contents.save(path, { type: 'notebook', format: 'json', content });
  }
  if (wanted.run) {
    wish({ path, code: wanted.run, until: Date.now() + PATIENCE });
  }
  const panel: unknown = await app.commands.execute('docmanager:open', { path, factory: 'Notebook' });
  if (isNotebook(panel)) {
    await runWished(panel);
  }
  return panel;
}

/** Run what this or another page of the same server wished for notebooks that open here. */
export function runWhenOpened(tracker: INotebookTracker): void {
  tracker.widgetAdded.connect((_, panel) => void runWished(panel));
}

async function runWished(panel: NotebookPanel): Promise<void> {
  await panel.context.ready;
  const wished = wish();
  if (!wished || wished.path !== panel.context.path || Date.now() > wished.until) {
    return;
  }
  // a notebook of the same name that somebody else wrote holds another cell: nothing of it is run
  const at = panel.content.widgets.findIndex(
    cell => cell.model.type === 'code' && cell.model.sharedModel.getSource() === wished.code
  );
  wish(null);
  await panel.sessionContext.ready;
  if (at >= 0 && !panel.isDisposed) {
    panel.content.activeCellIndex = at;
    await NotebookActions.run(panel.content, panel.sessionContext);
  }
}

/** Read the one wish, or set it; it is kept where every page of this server sees it. */
function wish(set?: Wish | null): Wish | null {
  const key = `tunebook:run:${PageConfig.getBaseUrl()}`;
  try {
    if (set === null) {
      localStorage.removeItem(key);
    } else if (set) {
      localStorage.setItem(key, JSON.stringify(set));
    }
    return JSON.parse(localStorage.getItem(key) ?? 'null') as Wish | null;
  } catch {
    return null; // no storage in this browser: the cell is there and waits for the user
  }
}

async function names(contents: Contents.IManager, folder: string): Promise<string[]> {
  const listed = await contents.get(folder, { content: true });
  return (listed.content as Contents.IModel[]).map(item => item.name);
}

async function beginsWith(contents: Contents.IManager, path: string, code: string | undefined): Promise<boolean> {
  const book = await contents.get(path, { type: 'notebook', format: 'json', content: true });
  const first = (book.content as { cells?: { cell_type: string; source: string | string[] }[] } | null)?.cells?.[0];
  return first?.cell_type === 'code' && [first.source].flat().join('') === code;
}

/** Metadata of the server's default kernel if that is Python, else of the first Python kernel. */
async function kernel(app: JupyterFrontEnd): Promise<object> {
  await app.serviceManager.kernelspecs.ready;
  const specs = app.serviceManager.kernelspecs.specs;
  const isPython = (name: string): boolean => specs?.kernelspecs[name]?.language.toLowerCase() === 'python';
  const name = [specs?.default ?? '', ...Object.keys(specs?.kernelspecs ?? {})].find(isPython) ?? 'python3';
  const display = specs?.kernelspecs[name]?.display_name ?? 'Python 3';
  return { kernelspec: { name, display_name: display, language: 'python' } };
}

function join(contents: Contents.IManager, folder: string, name: string): string {
  const drive = contents.driveName(folder);
  const path = PathExt.join(contents.localPath(folder), name);
  return drive ? `${drive}:${path}` : path;
}

function isNotebook(widget: unknown): widget is NotebookPanel {
  return Boolean(widget && (widget as NotebookPanel).sessionContext && (widget as NotebookPanel).content?.widgets);
}
