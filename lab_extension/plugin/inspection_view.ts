/** The view of a model file: asks the server once, and again when it is told that the file changed. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { button, h } from '../ui/dom.ts';
import { threeParts } from '../ui/frame.ts';
import { inspectionView, type Inspection } from '../ui/inspection.ts';
import { parts } from './api.ts';

export class InspectionView extends Widget {
  #asked = '';
  #panel: HTMLElement;

  /**
   * @param path - of the file or folder, below the server's root
   * @param inspect - asks the server
   */
  constructor(
    readonly path: string,
    private readonly inspect: (path: string) => Promise<Inspection>,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('tunebook-document');
    this.node.tabIndex = -1;
    this.#panel = h('section', { class: 'tunebook-panel', 'data-panel': 'inspection', 'data-lm-suppress-shortcuts': 'true' });
    this.#panel.setAttribute('aria-label', trans.__('Inspection of %1', path));
    this.node.append(this.#panel);
    void this.read();
  }

  /** Ask, and show what is told. What was shown stays until the answer is there. */
  async read(path = this.path): Promise<void> {
    if (this.#asked === path) {
      return; // the answer is on its way
    }
    this.#asked = path;
    if (!this.#panel.querySelector('.tb-inspection')) {
      this.#show(waiting(this.trans.__('Reading the header …')));
    }
    const view = await this.inspect(path).then(
      told => inspectionView(told, this.trans),
      (error: unknown) => this.#refused(error, path)
    );
    if (this.#asked === path && !this.isDisposed) {
      this.#asked = '';
      this.#show(view);
    }
  }

  protected override onActivateRequest(_message: Message): void {
    this.node.focus();
  }

  #show(content: HTMLElement): void {
    this.#panel.replaceChildren(h('div', { class: 'tb-content' }, content));
  }

  #refused(error: unknown, path: string): HTMLElement {
    const { trans } = this;
    const again = button(trans.__('Read again'), () => void this.read(path), { 'data-do': 'again' });
    return h('div', { class: 'tb-body', role: 'alert' }, threeParts(parts(error, trans)), h('div', { class: 'tb-buttons' }, again));
  }
}

function waiting(text: string): HTMLElement {
  return h('div', { class: 'tb-busy tb-on', role: 'status' }, h('span', { class: 'tb-spinner', 'aria-hidden': 'true' }), text);
}
