/** The guide in a notebook of its own, or in a cell of the notebook at hand. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { type Defaults, guideCode } from './code.ts';
import { defaults, SETTINGS } from './defaults.ts';
import guided from './guided.json';
import { tunebookIcon } from './icon.ts';
import { launcherPlace } from './launcher.ts';
import { type NewNotebook, openNew, runWhenOpened } from './notebooks.ts';

export const OPEN = 'tunebook:open-guide';
export const INSERT = 'tunebook:insert-guide';

/** The guided notebook with the user's defaults in its cell. */
function guidedNotebook(code: string): NewNotebook['content'] {
  const content = structuredClone(guided) as NewNotebook['content'];
  for (const cell of content.cells as { cell_type: string; source: string | string[] }[]) {
    if (cell.cell_type === 'code' && [cell.source].flat().join('').includes('tunebook.Guide()')) {
      cell.source = code;
    }
  }
  return content;
}

async function openGuide(app: JupyterFrontEnd, folder: string, chosen: Defaults): Promise<unknown> {
  const code = guideCode(chosen);
  return openNew(app, { folder, name: 'Fine-tune a model.ipynb', content: guidedNotebook(code), run: code });
}

/** Put a cell with the guide below the active cell. */
function insertGuide(tracker: INotebookTracker, chosen: Defaults): void {
  const notebook = tracker.currentWidget?.content;
  if (notebook) {
    NotebookActions.insertBelow(notebook);
    notebook.activeCell?.model.sharedModel.setSource(guideCode(chosen));
    void notebook.scrollToItem(notebook.activeCellIndex, 'smart');
  }
}

export const guide: JupyterFrontEndPlugin<void> = {
  id: SETTINGS,
  description: 'Guided fine-tuning of language models.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ILauncher, IDefaultFileBrowser, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    browser: IDefaultFileBrowser | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('tunebook');
    runWhenOpened(tracker);
    app.commands.addCommand(OPEN, {
      label: args => (args['isPalette'] ? trans.__('New Guided Fine-Tuning Notebook') : trans.__('Fine-tune a model')),
      caption: trans.__('Open a new notebook that guides through fine-tuning a language model'),
      icon: tunebookIcon,
      execute: async args =>
        openGuide(app, String(args['cwd'] ?? browser?.model.path ?? ''), await defaults(registry))
    });
    app.commands.addCommand(INSERT, {
      label: trans.__('Insert Fine-Tuning Guide'),
      caption: trans.__('Put a cell with the fine-tuning guide below the active cell'),
      icon: tunebookIcon,
      isEnabled: () => tracker.currentWidget !== null,
      execute: async () => insertGuide(tracker, await defaults(registry))
    });
    tracker.currentChanged.connect(() => app.commands.notifyCommandChanged(INSERT));
    const category = trans.__('Fine-tuning');
    palette?.addItem({ command: OPEN, category, args: { isPalette: true } });
    palette?.addItem({ command: INSERT, category });
    launcher?.add({ ...launcherPlace(trans), command: OPEN, rank: 1 });
  }
};
