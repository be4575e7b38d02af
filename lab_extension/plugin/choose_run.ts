/** A short list of the runs nearby; the one that is chosen is opened. */

import { ILabShell, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, InputDialog, showDialog } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import type { Contents } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { watchCode } from './code.ts';
import { defaults } from './defaults.ts';
import { runIcon } from './icon.ts';
import { launcherPlace } from './launcher.ts';
import { oneCell, openNew } from './notebooks.ts';

export const CHOOSE = 'tunebook:choose-run';
/** Asks for a run and shows it in a view of its own, where the plugin that has one is there. */
const OPEN_RUN = 'tunebook:open-run';

interface Found {
  path: string;
  label: string;
}

/** The folders in `folder/runs` and in `runs` at the top, the newest first. */
async function nearbyRuns(contents: Contents.IManager, folder: string, runs: string): Promise<Contents.IModel[]> {
  const places = [...new Set([PathExt.join(folder, runs), runs].map(place => PathExt.normalize(place)))];
  const listed = await Promise.all(places.map(place => folders(contents, place)));
  return listed.flat().sort((one, other) => other.last_modified.localeCompare(one.last_modified));
}

/** The folders in a folder; none if there is no such folder, which is found out without an error. */
async function folders(contents: Contents.IManager, path: string): Promise<Contents.IModel[]> {
  let found: Contents.IModel[] = await inside(contents, '');
  for (const part of path.split('/').filter(Boolean)) {
    const next = found.find(item => item.name === part);
    if (!next) {
      return [];
    }
    found = await inside(contents, next.path);
  }
  return found;
}

async function inside(contents: Contents.IManager, path: string): Promise<Contents.IModel[]> {
  const listed = await contents.get(path, { content: true });
  return (listed.content as Contents.IModel[]).filter(item => item.type === 'directory');
}

/** Let the user choose; null if there is none, or none was wanted. */
async function choose(found: readonly Found[], trans: TranslationBundle): Promise<Found | null> {
  const asked = await InputDialog.getItem({
    title: trans.__('Open a run'),
    label: trans.__('Runs, the newest first'),
    items: found.map(each => each.label),
    okLabel: trans.__('Open')
  });
  return (asked.button.accept && found.find(each => each.label === asked.value)) || null;
}

async function tellNone(runs: string, trans: TranslationBundle): Promise<void> {
  await showDialog({
    title: trans.__('There is no run here yet'),
    body: trans.__(
      'No folder `%1` with runs lies in this folder or at the top. A run appears there when a training is started; if yours are elsewhere, open their parent folder first, or name it in the settings of Tunebook.',
      runs
    ),
    buttons: [Dialog.okButton({ label: trans.__('Close') })]
  });
}

export const chooseRun: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:choose-run',
  description: 'Opens one of the runs nearby.',
  autoStart: true,
  requires: [IDefaultFileBrowser],
  optional: [ILabShell, ICommandPalette, ILauncher, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    browser: IDefaultFileBrowser,
    lab: ILabShell | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('tunebook');
    // the view is a tab of JupyterLab; Notebook 7 has none
    const hasView = (): boolean => lab !== null && app.commands.hasCommand(OPEN_RUN);
    app.commands.addCommand(CHOOSE, {
      label: args => (args['isPalette'] ? trans.__('Open a Run…') : trans.__('Open a run')),
      caption: trans.__('Open a run of the past, or one that goes on'),
      icon: runIcon,
      isVisible: args => !(args['unlessView'] && hasView()),
      execute: async args => {
        if (hasView()) {
          return app.commands.execute(OPEN_RUN);
        }
        const folder = String(args['cwd'] ?? browser.model.path);
        const runs = (await defaults(registry)).runs || 'runs';
        const items = await nearbyRuns(app.serviceManager.contents, folder, runs);
        if (!items.length) {
          return tellNone(runs, trans);
        }
        const chosen = await choose(items.map(item => labelled(item)), trans);
        return chosen && watchRun(app, folder, chosen.path);
      }
    });
    palette?.addItem({ command: CHOOSE, category: trans.__('Fine-tuning'), args: { isPalette: true, unlessView: true } });
    launcher?.add({ ...launcherPlace(trans), command: CHOOSE, rank: 3 });
  }
};

function labelled(item: Contents.IModel): Found {
  const when = new Date(item.last_modified).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
  return { path: item.path, label: `${item.path} · ${when}` };
}

/** Watch a run in a notebook. */
async function watchRun(app: JupyterFrontEnd, folder: string, path: string): Promise<unknown> {
  const code = watchCode(PathExt.relative(folder, path));
  const name = `${PathExt.basename(path)} run.ipynb`;
  return openNew(app, { folder, name, content: oneCell(code), run: code, again: true });
}
