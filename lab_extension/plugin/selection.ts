/** What is selected in the file browser at hand. */

import type { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import type { Contents } from '@jupyterlab/services';

/** The one item that is selected, or null if that is none or several. */
export function selectedItem(factory: IFileBrowserFactory | null): Contents.IModel | null {
  const items = factory?.tracker.currentWidget?.selectedItems();
  const [first, second] = [items?.next(), items?.next()];
  return first && !first.done && second?.done ? first.value : null;
}
