/** The sidebar of runs, the commands on a run, and the news that one has ended. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, ICommandPalette, Notification, showErrorMessage } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { copyIcon, folderIcon, type LabIcon, pauseIcon, runIcon, saveIcon, stopIcon } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { accepts, wishWords, WISHES, type RunRow, type Wish } from '../ui/run/rows.ts';
import { Api, parts } from './api';
import { tunebookIcon } from './icon';
import { RunsModel } from './runs_model';
import { RunsSidebar } from './runs_sidebar';
import { ASK_RUN, CATEGORY, COPY_RUN_PATH, IRuns, OPEN_RUN, REVEAL_RUN, SHOW_RUNS } from './tokens';

const ITEM = '.tb-run-item';
const GUIDE = 'tunebook:open-guide';
const ICONS: Record<Wish, LabIcon | undefined> = { pause: pauseIcon, continue: runIcon, stop: stopIcon, save: saveIcon, sample: undefined };

export const runs: JupyterFrontEndPlugin<IRuns> = {
  id: 'tunebook:runs',
  description: 'A sidebar of all fine-tuning runs, live.',
  autoStart: true,
  provides: IRuns,
  optional: [ILayoutRestorer, ICommandPalette, ISettingRegistry, ITranslator, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null,
    labShell: ILabShell | null
  ): IRuns => {
    const trans = (translator ?? nullTranslator).load('tunebook');
    const api = new Api(app.serviceManager.serverSettings, trans);
    const model = new RunsModel(api, trans);
    const shared = { api, model, trans };
    const open = (path: string): void => void app.commands.execute(OPEN_RUN, { path });
    const begin = (): void => void app.commands.execute(GUIDE);
    const sidebar = new RunsSidebar(model, { open, begin: app.commands.hasCommand(GUIDE) ? begin : undefined }, trans);
    app.shell.add(sidebar, 'left', { rank: 600, type: 'Fine-tuning runs' });
    restorer?.add(sidebar, 'tunebook-runs');
    addCommands(app, shared, sidebar, labShell !== null);
    palette?.addItem({ command: SHOW_RUNS, category: CATEGORY });
    void settle(app, shared, registry);
    return shared;
  }
};

/** The path of the run that a command is about: named, or under the context menu. */
export function runOf(app: JupyterFrontEnd, args: ReadonlyPartialJSONObject): string | undefined {
  const under = args['clicked'] ? app.contextMenuHitTest(node => node.matches(ITEM)) : undefined;
  return (args['path'] as string | undefined) ?? under?.dataset['path'];
}

/** Follow the settings; ask with the usual ones where they cannot be read. */
async function settle(app: JupyterFrontEnd, shared: IRuns, registry: ISettingRegistry | null): Promise<void> {
  let notify = true;
  shared.model.ended.connect((_, ended) => {
    if (notify) {
      ended.forEach(row => tell(app, shared, row));
    }
  });
  const settings = await registry?.load(runs.id).catch(() => undefined);
  const apply = (): void => {
    notify = (settings?.composite['notifyWhenRunEnds'] as boolean | undefined) ?? true;
    shared.model.start(1000 * ((settings?.composite['pollSeconds'] as number | undefined) ?? 2));
  };
  settings?.changed.connect(apply);
  await app.restored;
  apply();
}

/** Tell that a run has ended, and how; a stop was somebody's own wish and is not told. */
function tell(app: JupyterFrontEnd, { trans }: IRuns, row: RunRow): void {
  const actions = [{ label: trans.__('Open'), callback: () => void app.commands.execute(OPEN_RUN, { path: row.path }) }];
  if (row.state === 'completed') {
    Notification.success(trans.__('The run %1 is complete.', row.name), { actions, autoClose: 10_000 });
  } else if (row.state === 'failed') {
    const what = row.failure.do ? trans.__('What to do: %1', row.failure.do) : '';
    Notification.error([trans.__('The run %1 failed.', row.name), what].join(' '), { actions, autoClose: false });
  } else if (row.state === 'interrupted') {
    Notification.error(trans.__('The run %1 was cut off: its process is gone. It can be resumed.', row.name), { actions, autoClose: false });
  }
}

function addCommands(app: JupyterFrontEnd, { api, model, trans }: IRuns, sidebar: RunsSidebar, inLab: boolean): void {
  const named = (args: ReadonlyPartialJSONObject): string => runOf(app, args) ?? '';
  app.commands.addCommand(SHOW_RUNS, {
    label: trans.__('Show the fine-tuning runs'),
    icon: tunebookIcon,
    execute: () => app.shell.activateById(sidebar.id)
  });
  const wish = (args: ReadonlyPartialJSONObject): Wish => WISHES.find(one => one === args['wish']) ?? 'stop';
  app.commands.addCommand(ASK_RUN, {
    label: args => wishWords(wish(args), trans).label,
    caption: args => wishWords(wish(args), trans).about,
    icon: args => ICONS[wish(args)],
    isVisible: args => accepts(model.at(named(args)), wish(args)),
    execute: async args => {
      try {
        await api.ask(named(args), wish(args));
        await model.refresh();
      } catch (error) {
        const told = parts(error, trans);
        await showErrorMessage(told.what ?? '', `${told.why ?? ''} ${told.do ?? ''}`);
      }
    }
  });
  app.commands.addCommand(REVEAL_RUN, {
    label: trans.__('Show in the file browser'),
    icon: folderIcon,
    isVisible: () => inLab,
    execute: args => app.commands.execute('filebrowser:go-to-path', { path: named(args) })
  });
  app.commands.addCommand(COPY_RUN_PATH, {
    label: trans.__('Copy path'),
    icon: copyIcon,
    execute: args => Clipboard.copyToSystem(named(args))
  });
  const items = [{ command: OPEN_RUN }, ...WISHES.map(one => ({ command: ASK_RUN, wish: one })), { command: REVEAL_RUN }, { command: COPY_RUN_PATH }];
  items.forEach(({ command, ...args }, rank) => app.contextMenu.addItem({ command, selector: ITEM, rank, args: { clicked: true, ...args } }));
}
