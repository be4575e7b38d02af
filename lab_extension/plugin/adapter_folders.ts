/** Which folders of the file browsers hold an adapter; asked again only when the folders changed. */

import type { FileBrowser, IFileBrowserFactory } from '@jupyterlab/filebrowser';
import type { Contents } from '@jupyterlab/services';

export class AdapterFolders {
  #known = new Set<string>();
  #asked = new WeakMap<FileBrowser, string>();
  #missing = false;

  /**
   * @param ask - the names of the folders in a folder that hold an adapter
   */
  constructor(
    factory: IFileBrowserFactory,
    private readonly ask: (path: string) => Promise<string[]>
  ) {
    factory.tracker.forEach(browser => this.#watch(browser));
    factory.tracker.widgetAdded.connect((_, browser) => this.#watch(browser));
  }

  has(path: string): boolean {
    return this.#known.has(path);
  }

  #watch(browser: FileBrowser): void {
    const look = (): void => void this.#look(browser);
    browser.model.refreshed.connect(look);
    browser.model.pathChanged.connect(look);
    look();
  }

  async #look(browser: FileBrowser): Promise<void> {
    const folders = [...browser.model.items()].filter(item => item.type === 'directory');
    const state = folders.map(folder => `${folder.path} ${folder.last_modified}`).join('\n');
    if (this.#missing || !folders.length || this.#asked.get(browser) === state) {
      return;
    }
    this.#asked.set(browser, state);
    try {
      const names = new Set(await this.ask(browser.model.path));
      folders.forEach(folder => this.#set(folder, names.has(folder.name)));
    } catch {
      this.#missing = true; // no server extension: folders are opened as ever
    }
  }

  #set(folder: Contents.IModel, holds: boolean): void {
    if (holds) {
      this.#known.add(folder.path);
    } else {
      this.#known.delete(folder.path);
    }
  }
}
