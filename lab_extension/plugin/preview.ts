/** Rows of a file as training data: from the file browser, or by a dialog that asks for the file. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { FileDialog, IDefaultFileBrowser, IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { type Defaults, previewCode } from './code.ts';
import { defaults } from './defaults.ts';
import { dataIcon } from './icon.ts';
import { launcherPlace } from './launcher.ts';
import { oneCell, openNew } from './notebooks.ts';
import { selectedItem } from './selection.ts';

export const PREVIEW = 'tunebook:preview-data';
const DATA = /\.(jsonl|ndjson|json|csv|tsv|parquet)$/i;

/** A notebook beside the file, so that the path in its cell is the file's name. */
async function preview(app: JupyterFrontEnd, path: string, chosen: Defaults): Promise<unknown> {
  const file = PathExt.basename(app.serviceManager.contents.localPath(path));
  const folder = path.slice(0, path.length - file.length).replace(/\/$/, '');
  const code = previewCode(file, chosen);
  return openNew(app, { folder, name: `${file} preview.ipynb`, content: oneCell(code), run: code, again: true });
}

/** Ask for a data file; null if the user thought better of it. */
async function askForFile(browser: IDefaultFileBrowser, folder: string, translator: ITranslator, trans: TranslationBundle): Promise<string | null> {
  const asked = await FileDialog.getOpenFiles({
    manager: browser.model.manager,
    translator,
    defaultPath: folder,
    title: trans.__('Check a dataset'),
    label: trans.__('Choose a file of rows: .jsonl, .json, .csv, .tsv or .parquet'),
    filter: item => (item.type === 'directory' || DATA.test(item.name) ? {} : null)
  });
  const file = asked.button.accept ? asked.value?.find(item => DATA.test(item.name)) : undefined;
  return file?.path ?? null;
}

export const previewData: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:preview',
  description: 'Shows a file as a model would learn from it.',
  autoStart: true,
  optional: [ICommandPalette, ILauncher, IDefaultFileBrowser, IFileBrowserFactory, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    browser: IDefaultFileBrowser | null,
    factory: IFileBrowserFactory | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const known = translator ?? nullTranslator;
    const trans = known.load('tunebook');
    const pathOf = async (args: Record<string, unknown>): Promise<string | null> => {
      if (typeof args['path'] === 'string') {
        return args['path'];
      }
      if (args['selected']) {
        return selectedItem(factory)?.path ?? null;
      }
      return browser ? askForFile(browser, String(args['cwd'] ?? browser.model.path), known, trans) : null;
    };
    app.commands.addCommand(PREVIEW, {
      label: args =>
        args['selected'] ? trans.__('Preview as Training Data') : args['isPalette'] ? trans.__('Check a Dataset…') : trans.__('Check a dataset'),
      caption: trans.__('Look at the rows of a file token by token, and at what is wrong with them'),
      icon: dataIcon,
      isVisible: args => !args['selected'] || isData(selectedItem(factory)),
      execute: async args => {
        const path = await pathOf(args);
        return path === null ? null : preview(app, path, await defaults(registry));
      }
    });
    if (browser) {
      palette?.addItem({ command: PREVIEW, category: trans.__('Fine-tuning'), args: { isPalette: true } });
      launcher?.add({ ...launcherPlace(trans), command: PREVIEW, rank: 2 });
    }
  }
};

function isData(item: { type: string; name: string } | null): boolean {
  return item !== null && item.type !== 'directory' && DATA.test(item.name);
}
