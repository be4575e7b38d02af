/** Lets panels put code below the cell that shows them: `tunebook:can-insert` asks, `tunebook:insert-code` does. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';

const ASK = 'tunebook:can-insert';
const INSERT = 'tunebook:insert-code';

/** The notebook and the cell that hold an element, if it is in one that can be edited. */
function placeOf(tracker: INotebookTracker, element: EventTarget | null): { panel: NotebookPanel; index: number } | null {
  const panel = element instanceof Node ? tracker.find(each => each.content.node.contains(element)) : undefined;
  const index = panel?.content.widgets.findIndex(cell => cell.node.contains(element as Node)) ?? -1;
  return panel && index >= 0 && !panel.content.model?.readOnly ? { panel, index } : null;
}

/** Insert a code cell below another, select it, and bring it into view. */
function insertBelow(panel: NotebookPanel, index: number, code: string): void {
  const notebook = panel.content;
  notebook.deselectAll();
  notebook.activeCellIndex = index;
  NotebookActions.insertBelow(notebook);
  notebook.activeCell?.model.sharedModel.setSource(code);
  notebook.mode = 'command';
  notebook.activate();
  void notebook.scrollToItem(notebook.activeCellIndex, 'smart');
}

export const cells: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:cells',
  description: 'Inserts the code that a panel shows as a cell.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_app, tracker: INotebookTracker) => {
    document.addEventListener(ASK, event => {
      if (placeOf(tracker, event.target)) {
        event.preventDefault();
      }
    });
    document.addEventListener(INSERT, event => {
      const place = placeOf(tracker, event.target);
      const code = event instanceof CustomEvent ? (event.detail as { code?: unknown } | null)?.code : undefined;
      if (place && typeof code === 'string') {
        insertBelow(place.panel, place.index, code);
        event.preventDefault();
      }
    });
  }
};
