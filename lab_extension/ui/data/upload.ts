/** Files that are dropped or picked: sent to the kernel in pieces; paths are handed on as such. */

import { button, freshId, h, setText, toggle } from '../dom.ts';
import { bytes } from '../format.ts';
import { follow, type Cleanup } from '../model.ts';
import { visible } from '../visible.ts';
import type { Model } from './state.ts';

const PIECE = 2 ** 20; // bytes; a server takes messages of up to ten times that
const AHEAD = 4 * PIECE; // bytes sent beyond what has arrived
const ENDINGS = '.jsonl,.ndjson,.json,.csv,.tsv,.parquet,.arrow,.feather,.txt,.md,.gz,.bz2,.xz';
const CONTENTS = 'application/x-jupyter-icontents';

/** What a drag inside JupyterLab looks like. */
interface LabDrag extends Event {
  mimeData: { hasData: (type: string) => boolean; getData: (type: string) => unknown };
  proposedAction: string;
  dropAction: string;
}

/** The strip that takes files, and the progress of one; `target` takes drops too. */
export function dropZone(model: Model, cleanup: Cleanup, target: HTMLElement): HTMLElement[] {
  const sender = new Sender(model, cleanup);
  const pick = h('input', { type: 'file', accept: ENDINGS, class: 'tb-hidden', tabindex: -1, 'aria-hidden': 'true' });
  pick.addEventListener('change', () => {
    sender.send(pick.files?.[0]);
    pick.value = '';
  });
  const choose = button('choose one', () => pick.click(), { class: 'tb-link', 'data-do': 'pick-file' });
  const zone = h('div', { class: 'tb-drop' }, h('p', {}, 'Drop a file from your computer or from the file browser here, or ', choose, '.'), folder(model, cleanup), pick);
  listen(model, sender, target);
  return [zone, progress(model, cleanup, sender)];
}

function folder(model: Model, cleanup: Cleanup): HTMLElement {
  const id = freshId('folder');
  const input = h('input', { type: 'text', id, class: 'tb-input', autocomplete: 'off', spellcheck: 'false' });
  input.addEventListener('change', () => model.send({ type: 'upload_folder', folder: input.value }));
  follow(model, ['upload_folder'], () => (input.value = model.get('upload_folder')), cleanup);
  const label = h('label', { class: 'tb-label', for: id }, 'Files from your computer are copied to');
  return h('details', { class: 'tb-drop-folder' }, h('summary', {}, 'Folder'), h('div', { class: 'tb-inline' }, label, input));
}

function progress(model: Model, cleanup: Cleanup, sender: Sender): HTMLElement {
  const words = h('span', { role: 'status', dir: 'auto' });
  const bar = h('progress', { class: 'tb-progress', max: 1, 'aria-label': 'Upload' });
  const cancel = button('Cancel', () => sender.cancel(), { class: 'tb-button tb-small', 'data-do': 'cancel-upload' });
  const box = h('div', { class: 'tb-upload' }, words, bar, cancel);
  const draw = (): void => {
    const { name = '', size = 0, received = 0, state, path = '' } = model.get('upload');
    const sending = state === 'sending';
    toggle(box, state !== undefined);
    toggle(bar, sending);
    toggle(cancel, sending);
    bar.value = size ? received / size : 0;
    setText(words, sending ? `Uploading ${visible(name)}: ${bytes(received)} of ${bytes(size)}` : `Uploaded ${bytes(size)} to ${visible(path)}`);
  };
  follow(model, ['upload'], draw, cleanup);
  return box;
}

/** Sends one file; what has arrived stands in the trait `upload`. */
class Sender {
  #model: Model;
  #file: File | undefined;
  #id = '';
  #sent = 0;
  #reading = false;

  constructor(model: Model, cleanup: Cleanup) {
    this.#model = model;
    follow(model, ['upload'], () => void this.#go(), cleanup);
    cleanup.add(() => (this.#file = undefined));
  }

  send(file: File | undefined): void {
    if (file) {
      [this.#file, this.#id, this.#sent] = [file, freshId('upload'), 0];
      this.#model.send({ type: 'upload_begin', id: this.#id, name: file.name, size: file.size });
    }
  }

  cancel(): void {
    this.#file = undefined;
    this.#model.send({ type: 'upload_cancel' });
  }

  /** Read and send on, as far as the kernel keeps up. */
  async #go(): Promise<void> {
    if (this.#reading) {
      return;
    }
    this.#reading = true;
    try {
      while (this.#may()) {
        const [file, id, offset] = [this.#file as File, this.#id, this.#sent];
        const piece = await file.slice(offset, offset + PIECE).arrayBuffer();
        if (file !== this.#file) {
          continue;
        }
        this.#sent = offset + piece.byteLength;
        this.#model.send({ type: 'upload_piece', id, offset }, undefined, [piece]);
      }
    } catch {
      this.cancel(); // the file was moved or changed while it was read
    } finally {
      this.#reading = false;
    }
  }

  #may(): boolean {
    const { id, state, received = 0 } = this.#model.get('upload');
    return Boolean(this.#file) && id === this.#id && state === 'sending' && this.#sent < (this.#file as File).size && this.#sent < received + AHEAD;
  }
}

function listen(model: Model, sender: Sender, target: HTMLElement): void {
  const light = (on: boolean): void => void target.classList.toggle('tb-dragged', on);
  target.addEventListener('dragover', event => {
    event.preventDefault();
    light(true);
  });
  target.addEventListener('dragleave', () => light(false));
  target.addEventListener('drop', event => {
    event.preventDefault();
    event.stopPropagation();
    light(false);
    const data = event.dataTransfer;
    const text = data?.getData('text/uri-list') || data?.getData('text/plain');
    if (data?.files.length) {
      sender.send(data.files[0]);
    } else if (text) {
      model.send({ type: 'source', source: text });
    }
  });
  for (const name of ['lm-dragenter', 'lm-dragover', 'lm-dragleave', 'lm-drop']) {
    target.addEventListener(name, event => labDrag(model, event as LabDrag, light));
  }
}

/** A drag of JupyterLab's own, such as from its file browser: it names paths, and nothing is sent. */
function labDrag(model: Model, event: LabDrag, light: (on: boolean) => void): void {
  if (!event.mimeData.hasData(CONTENTS)) {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
  light(event.type === 'lm-dragenter' || event.type === 'lm-dragover');
  if (event.type !== 'lm-dragleave') {
    event.dropAction = event.proposedAction;
  }
  if (event.type === 'lm-drop') {
    const paths = event.mimeData.getData(CONTENTS) as string[];
    if (paths[0]) {
      model.send({ type: 'drop_path', path: paths[0], root: serverRoot() });
    }
  }
}

/** The folder that JupyterLab's paths begin at, as its page says. */
function serverRoot(): string | null {
  try {
    const config = JSON.parse(document.getElementById('jupyter-config-data')?.textContent ?? '{}') as { serverRoot?: string };
    return config.serverRoot || null;
  } catch {
    return null;
  }
}
