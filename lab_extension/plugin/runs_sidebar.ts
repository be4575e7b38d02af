/** The sidebar: every run below the server's root, or what to do where none can be shown. */

import { refreshIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import { button, h, setText, toggle } from '../ui/dom.ts';
import { threeParts } from '../ui/frame.ts';
import { RunList } from '../ui/run/list.ts';
import { isLive, type Translator } from '../ui/run/rows.ts';
import { tunebookIcon } from './icon';
import type { RunsModel } from './runs_model';

export interface SidebarActions {
  open: (path: string) => void;
  /** Bring up the guide; absent where no notebook can be made. */
  begin?: (() => void) | undefined;
}

export class RunsSidebar extends Widget {
  #model: RunsModel;
  #trans: Translator;
  #list: RunList;
  #count = h('span', { class: 'tb-muted', role: 'status' });
  #problem = h('div', { class: 'tb-errors', role: 'alert' });
  #empty: HTMLElement;
  #note = h('p', { class: 'tb-muted tb-run-note' });
  #said = '';

  constructor(model: RunsModel, actions: SidebarActions, trans: Translator) {
    super();
    this.#model = model;
    this.#trans = trans;
    this.id = 'tunebook-runs';
    this.title.icon = tunebookIcon;
    this.title.caption = trans.__('Fine-tuning runs');
    this.addClass('tunebook-panel');
    this.addClass('tb-sidebar');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Fine-tuning runs'));
    this.#list = new RunList(actions.open, trans);
    this.#empty = this.#nothingYet(actions.begin);
    this.node.append(this.#head(), this.#problem, this.#empty, this.#list.node, this.#note);
    model.changed.connect(this.#draw);
    this.#draw();
  }

  override dispose(): void {
    this.#model.changed.disconnect(this.#draw);
    super.dispose();
  }

  #head(): HTMLElement {
    const again = button('', () => void this.#model.refresh(), { class: 'tb-icon-button', 'aria-label': this.#trans.__('Look again') });
    again.title = this.#trans.__('Look again');
    refreshIcon.element({ container: again, elementPosition: 'center' });
    return h('div', { class: 'tb-sidebar-head' }, h('h2', {}, this.#trans.__('Runs')), this.#count, again);
  }

  #nothingYet(begin: (() => void) | undefined): HTMLElement {
    const words = this.#trans.__('No run yet. Runs that begin below this folder appear here by themselves, whether a notebook, a script or a shell started them.');
    return h(
      'div',
      { class: 'tb-run-empty' },
      h('p', { class: 'tb-muted' }, words),
      begin ? button(this.#trans.__('Fine-tune a model'), begin, { class: 'tb-button tb-primary' }) : null
    );
  }

  #draw = (): void => {
    const { rows, problem, ready, more, partial } = this.#model;
    const live = rows.filter(row => isLive(row.state)).length;
    setText(this.#count, live ? this.#trans.__('%1 live', live) : '');
    this.node.dataset['ready'] = String(ready);
    this.#say(JSON.stringify(problem));
    toggle(this.#empty, ready && !problem && rows.length === 0);
    this.#list.set(rows);
    toggle(this.#list.node, rows.length > 0);
    const notes = [
      more ? this.#trans._n('%1 older run is left out.', '%1 older runs are left out.', more, more) : '',
      partial ? this.#trans.__('This folder is too large to be searched as a whole: runs far down may be missing.') : ''
    ];
    setText(this.#note, notes.filter(Boolean).join(' '));
  };

  #say(said: string): void {
    if (said !== this.#said) {
      this.#said = said;
      const problem = this.#model.problem;
      this.#problem.replaceChildren(...(problem ? [threeParts(problem)] : []));
    }
  }
}
