/** One run on one page: head, curves, and what else there is in tabs. Knows no server and no Lab. */

import type { Forecast } from '../bar.ts';
import { h, toggle } from '../dom.ts';
import { threeParts } from '../frame.ts';
import { Cleanup, type ThreePartError } from '../model.ts';
import { tabs, type Tabs } from '../tabs.ts';
import { RunCurves } from './curves.ts';
import { RunHead, type HeadActions } from './head.ts';
import { eventsPage, filesPage, planPage, recipePage, samplesPage } from './pages.ts';
import type { RunContents, RunPicture } from './picture.ts';
import type { Translator } from './rows.ts';

export type PageName = 'events' | 'samples' | 'recipe' | 'plan' | 'files';
export type Contents = RunContents & { plan: Forecast | null };

export interface DocumentActions extends HeadActions {
  /** Open a file of the run, by its path in the run's folder. */
  openFile: (path: string) => void;
}

export class RunPage {
  readonly node: HTMLElement;
  #cleanup = new Cleanup();
  #trans: Translator;
  #actions: DocumentActions;
  #problem = h('div', { class: 'tb-errors', role: 'alert' });
  #told = '';
  #head: RunHead;
  #curves: RunCurves;
  #tabs: Tabs<PageName>;
  #body: HTMLElement;
  #page: PageName = 'events';
  #drawn: unknown[] = [];
  #run: RunPicture | null = null;
  #contents: Contents | null = null;

  constructor(actions: DocumentActions, trans: Translator) {
    this.#actions = actions;
    this.#trans = trans;
    this.#head = new RunHead(actions, trans);
    this.#curves = new RunCurves(this.#cleanup, trans);
    const items: { name: PageName; title: string }[] = [
      { name: 'events', title: trans.__('What happened') },
      { name: 'samples', title: trans.__('Samples') },
      { name: 'recipe', title: trans.__('Recipe') },
      { name: 'plan', title: trans.__('Forecast') },
      { name: 'files', title: trans.__('Files') }
    ];
    this.#tabs = tabs(trans.__('About this run'), items, this.#choose);
    this.#body = h('div', { class: 'tb-body' }, this.#head.node, this.#curves.node, h('div', { class: 'tb-run-tabs' }, this.#tabs.bar, this.#tabs.panel));
    toggle(this.#body, false);
    this.node = h('div', { class: 'tb-run-page' }, this.#problem, this.#body);
    this.#tabs.show(this.#page);
  }

  /** Show what the events tell. */
  setRun(run: RunPicture): void {
    this.#run = run;
    this.#head.set(run);
    this.#curves.set(run, this.#contents?.plan?.total ?? 0);
    toggle(this.#body, true);
    this.#draw();
  }

  /** Show what the folder holds. */
  setContents(contents: Contents): void {
    this.#contents = contents;
    if (this.#run) {
      this.#curves.set(this.#run, contents.plan?.total ?? 0);
    }
    this.#draw();
  }

  /** Show what is wrong, above what was there before; null takes it away. */
  setProblem(problem: ThreePartError | null): void {
    const told = JSON.stringify(problem);
    if (told !== this.#told) {
      this.#told = told;
      this.#problem.replaceChildren(...(problem ? [threeParts(problem)] : []));
    }
  }

  /** Take away what listens outside of this page. */
  end(): void {
    this.#cleanup.run();
  }

  #choose = (name: PageName): void => {
    this.#page = name;
    this.#tabs.show(name);
    this.#draw();
  };

  /** Draw the chosen page, unless what it shows is the same as before: focus and selection stay. */
  #draw(): void {
    const source = this.#page === 'events' ? this.#run?.messages : this.#page === 'samples' ? this.#run?.samples : this.#contents;
    const shown = [this.#page, JSON.stringify(source ?? null)];
    if (shown[0] === this.#drawn[0] && shown[1] === this.#drawn[1]) {
      return;
    }
    this.#drawn = shown;
    this.#tabs.panel.replaceChildren(this.#content());
  }

  #content(): HTMLElement {
    const [run, contents, trans] = [this.#run, this.#contents, this.#trans];
    if (this.#page === 'events' || this.#page === 'samples') {
      const page = this.#page === 'events' ? eventsPage : samplesPage;
      return run ? page(run, trans) : h('p');
    }
    if (!contents) {
      return h('p', { class: 'tb-muted' }, trans.__('Reading …'));
    }
    if (this.#page === 'recipe') {
      return recipePage(contents, trans);
    }
    return this.#page === 'plan' ? planPage(contents.plan, trans) : filesPage(contents, this.#actions.openFile, trans);
  }
}
