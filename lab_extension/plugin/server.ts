/** Questions about model files to the server extension; its errors keep their three parts. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Inspection } from '../ui/inspection.ts';
import type { ThreePartError } from '../ui/model.ts';

/** An answer other than a good one. */
export class Refusal extends Error {
  constructor(readonly parts: ThreePartError) {
    super(parts.what);
  }
}

export class ModelFiles {
  constructor(
    private readonly settings: ServerConnection.ISettings,
    private readonly trans: TranslationBundle
  ) {}

  /** What the file or folder says of itself. */
  inspect = (path: string): Promise<Inspection> => this.#ask('inspect', path);

  /** The names of the folders directly in a folder that hold an adapter. */
  adapters = async (path: string): Promise<string[]> => (await this.#ask<{ folders: string[] }>('inspect/adapters', path)).folders;

  async #ask<T>(route: string, path: string): Promise<T> {
    const url = URLExt.join(this.settings.baseUrl, 'tunebook', route) + URLExt.objectToQueryString({ path });
    const response = await ServerConnection.makeRequest(url, {}, this.settings).catch(() => null);
    const body = (await response?.json().catch(() => null)) as (T & { error?: ThreePartError; message?: string }) | null;
    if (response?.ok && body) {
      return body;
    }
    throw new Refusal(body?.error?.what ? body.error : this.#parts(response, body?.message));
  }

  #parts(response: Response | null, message = ''): ThreePartError {
    const { trans } = this;
    if (!response) {
      return {
        name: 'ServerUnreachable',
        what: trans.__('The Jupyter server does not answer.'),
        why: trans.__('it was stopped, or the connection to it is broken.'),
        do: trans.__('start it again, then press Read again.')
      };
    }
    if (response.status === 404) {
      return {
        name: 'ServerExtensionMissing',
        what: trans.__('Looking into model files needs a part of Tunebook in the Jupyter server.'),
        why: trans.__('the server extension `tunebook.server` is not installed or not enabled there.'),
        do: trans.__('install tunebook where Jupyter runs, run `jupyter server extension enable tunebook.server`, and restart it; or use `tunebook.inspect_file` in a notebook.')
      };
    }
    return {
      name: 'ServerRefused',
      what: trans.__('The Jupyter server did not look into the file.'),
      why: trans.__('it answered %1: %2', response.status, message || response.statusText),
      do: trans.__('log in again if your session has ended; else look at the log of the server.')
    };
  }
}
