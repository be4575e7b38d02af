/** A launcher card and commands that bring the guide into a notebook. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import guided from './guided.json';
import { tunebookIcon } from './icon';

export const OPEN = 'tunebook:open-guide';
export const INSERT = 'tunebook:insert-guide';
const CATEGORY = 'Fine-tuning';
const GUIDE_CODE = 'import tunebook\n\nguide = tunebook.Guide()\nguide';

/** Write the guided notebook as a new file in a folder and open it. */
async function openGuide(app: JupyterFrontEnd, folder: string): Promise<unknown> {
  const contents = app.serviceManager.contents;
  const fresh = await contents.newUntitled({ path: folder, type: 'notebook' });
  await contents.save(fresh.path, { type: 'notebook', format: 'json', content: guided });
  const named = await renamed(app, fresh.path);
  return app.commands.execute('docmanager:open', {
    path: named,
    factory: 'Notebook',
    kernel: { name: await kernelName(app) }
  });
}

/** A name that says what it is, if it is free; else the untitled one is kept. */
async function renamed(app: JupyterFrontEnd, path: string): Promise<string> {
  const wanted = path.replace(/[^/]*$/, 'Fine-tune a model.ipynb');
  try {
    return (await app.serviceManager.contents.rename(path, wanted)).path;
  } catch {
    return path;
  }
}

/** The server's default kernel if it is Python, else the first Python kernel. */
async function kernelName(app: JupyterFrontEnd): Promise<string> {
  await app.serviceManager.kernelspecs.ready;
  const specs = app.serviceManager.kernelspecs.specs;
  const isPython = (name: string): boolean => specs?.kernelspecs[name]?.language.toLowerCase() === 'python';
  const names = [specs?.default ?? '', ...Object.keys(specs?.kernelspecs ?? {})];
  return names.find(isPython) ?? 'python3';
}

/** Put a cell with the guide below the active cell. */
function insertGuide(tracker: INotebookTracker): void {
  const notebook = tracker.currentWidget?.content;
  if (notebook) {
    NotebookActions.insertBelow(notebook);
    notebook.activeCell?.model.sharedModel.setSource(GUIDE_CODE);
  }
}

export const guide: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:plugin',
  description: 'Guided fine-tuning of language models.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ILauncher, IDefaultFileBrowser],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    browser: IDefaultFileBrowser | null
  ) => {
    app.commands.addCommand(OPEN, {
      label: args => (args['isPalette'] ? 'New guided fine-tuning notebook' : 'Fine-tune a model'),
      caption: 'Open a new notebook that guides through fine-tuning a language model',
      icon: tunebookIcon,
      execute: args => openGuide(app, String(args['cwd'] ?? browser?.model.path ?? ''))
    });
    app.commands.addCommand(INSERT, {
      label: 'Insert the fine-tuning guide',
      caption: 'Put a cell with the guide below the active cell',
      icon: tunebookIcon,
      isEnabled: () => tracker.currentWidget !== null,
      execute: () => insertGuide(tracker)
    });
    tracker.currentChanged.connect(() => app.commands.notifyCommandChanged(INSERT));
    palette?.addItem({ command: OPEN, category: CATEGORY, args: { isPalette: true } });
    palette?.addItem({ command: INSERT, category: CATEGORY });
    // cards of this category draw an address, not a LabIcon
    const kernelIconUrl = `data:image/svg+xml;utf8,${encodeURIComponent(tunebookIcon.svgstr)}`;
    launcher?.add({ command: OPEN, category: 'Notebook', rank: 10, kernelIconUrl });
  }
};
