/** A run as a document: a tab of the main area, live, and back after a reload. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, InputDialog, MainAreaWidget, showErrorMessage, WidgetTracker } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { Poll } from '@lumino/polling';
import { Widget } from '@lumino/widgets';
import { RunPage } from '../ui/run/document.ts';
import type { RunPicture } from '../ui/run/picture.ts';
import { isLive, stateWord } from '../ui/run/rows.ts';
import { parts } from './api';
import { tunebookIcon } from './icon';
import { runOf } from './runs';
import { ASK_RUN, CATEGORY, COPY_RUN_PATH, IRuns, OPEN_RUN, REVEAL_RUN } from './tokens';

const LIVE = 1000; // milliseconds between two looks at a live run
const IDLE = 10_000;

/** The content of the tab. */
class RunDocument extends Widget {
  readonly path: string;
  #runs: IRuns;
  #page: RunPage;
  #poll: Poll;
  #run: RunPicture | null = null;
  #seen = '';

  constructor(path: string, page: RunPage, runs: IRuns) {
    super();
    this.node.append(page.node);
    this.path = path;
    this.#page = page;
    this.#runs = runs;
    this.addClass('tunebook-panel');
    this.addClass('tb-run-document');
    this.title.label = PathExt.basename(path);
    this.title.caption = path;
    this.title.icon = tunebookIcon;
    this.#poll = new Poll({
      name: `tunebook:run:${path}`,
      factory: () => this.#ask(),
      frequency: { interval: LIVE, backoff: true, max: 60_000 },
      standby: () => (this.isVisible ? 'when-hidden' : true)
    });
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.#poll.dispose();
      this.#page.end();
      this.#runs.api.forget(this.path);
      super.dispose();
    }
  }

  /** Ask now. */
  refresh(): void {
    void this.#poll.refresh();
  }

  protected override onAfterShow(): void {
    this.refresh();
  }

  async #ask(): Promise<void> {
    try {
      const run = await this.#runs.api.run(this.path);
      this.#page.setProblem(null);
      if (run !== this.#run) {
        this.#run = run;
        this.#page.setRun(run);
        this.#poll.frequency = { ...this.#poll.frequency, interval: isLive(run.state) ? LIVE : IDLE };
      }
      await this.#askContents(run);
    } catch (error) {
      this.#page.setProblem(parts(error, this.#runs.trans));
      throw error; // the poll asks more and more seldom
    }
  }

  /** The folder changes where the log says that something was written, or the run ends. */
  async #askContents(run: RunPicture): Promise<void> {
    const seen = `${run.state} ${run.messages.length} ${run.messages.at(-1)?.step ?? 0}`;
    if (seen !== this.#seen) {
      this.#page.setContents(await this.#runs.api.contents(this.path));
      this.#seen = seen;
    }
  }
}

export const runDocument: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:run-document',
  description: 'A document view of one fine-tuning run.',
  autoStart: true,
  requires: [IRuns],
  optional: [ILayoutRestorer, ICommandPalette, ILabShell],
  activate: (app: JupyterFrontEnd, runs: IRuns, restorer: ILayoutRestorer | null, palette: ICommandPalette | null, labShell: ILabShell | null) => {
    const tracker = new WidgetTracker<MainAreaWidget<RunDocument>>({ namespace: 'tunebook-run' });
    app.commands.addCommand(OPEN_RUN, {
      label: args => (args['clicked'] ? runs.trans.__('Open') : runs.trans.__('Open a fine-tuning run …')),
      caption: runs.trans.__('Show a run with its curves, recipe, samples and files'),
      icon: tunebookIcon,
      execute: async args => {
        const path = runOf(app, args) ?? (await choose(runs));
        if (path !== undefined) {
          open(app, runs, tracker, path, labShell !== null);
        }
      }
    });
    palette?.addItem({ command: OPEN_RUN, category: CATEGORY });
    void restorer?.restore(tracker, {
      command: OPEN_RUN,
      args: widget => ({ path: widget.content.path }),
      name: widget => widget.content.path
    });
  }
};

/** Bring up the tab of a run, a new one if there is none. */
function open(app: JupyterFrontEnd, runs: IRuns, tracker: WidgetTracker<MainAreaWidget<RunDocument>>, path: string, inLab: boolean): void {
  const there = tracker.find(widget => widget.content.path === path);
  const widget = there ?? new MainAreaWidget({ content: document(app, runs, path, inLab) });
  if (!there) {
    widget.id = `tunebook-run-${path}`;
    widget.toolbar.hide();
    app.shell.add(widget, 'main');
    void tracker.add(widget);
  }
  app.shell.activateById(widget.id);
}

function document(app: JupyterFrontEnd, runs: IRuns, path: string, inLab: boolean): RunDocument {
  const run = (command: string): void => void app.commands.execute(command, { path });
  const page = new RunPage(
    {
      ask: wish => void app.commands.execute(ASK_RUN, { path, wish }).then(() => content.refresh()),
      reveal: inLab ? () => run(REVEAL_RUN) : undefined,
      copyPath: () => run(COPY_RUN_PATH),
      openFile: file => void app.commands.execute('docmanager:open', { path: PathExt.join(path, file) })
    },
    runs.trans
  );
  const content = new RunDocument(path, page, runs);
  return content;
}

/** Let the user pick one of the runs. */
async function choose({ model, trans }: IRuns): Promise<string | undefined> {
  if (!model.rows.length) {
    const told = model.problem ?? { what: trans.__('There is no run yet.'), do: trans.__('start one in a notebook: `tunebook.Guide()`, or by “Fine-tune a model” in the launcher.') };
    await showErrorMessage(told.what ?? '', told.do ?? '');
    return undefined;
  }
  const items = model.rows.map(row => `${row.path} (${stateWord(row.state, trans)})`);
  const picked = await InputDialog.getItem({ title: trans.__('Open a fine-tuning run'), items });
  return model.rows[picked.value === null ? -1 : items.indexOf(picked.value)]?.path;
}
