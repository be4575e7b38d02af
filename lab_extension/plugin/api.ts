/** Questions to the server extension, with errors in three parts. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { Forecast } from '../ui/bar.ts';
import type { Inspection } from '../ui/inspection.ts';
import type { ThreePartError } from '../ui/model.ts';
import type { Gpu, RunRow, Translator, Wish } from '../ui/run/rows.ts';
import type { RunContents, RunPicture } from '../ui/run/picture.ts';

export interface RunList {
  runs: RunRow[];
  /** Older ones that are left out. */
  more: number;
  /** The root is too large to have been searched as a whole. */
  partial: boolean;
}

/** An answer other than a good one. */
export class ApiError extends Error {
  /**
   * @param missing - the server does not know the question: its extension is not there
   */
  constructor(
    readonly parts: ThreePartError,
    readonly missing = false
  ) {
    super(parts.what);
  }
}

export class Api {
  #settings: ServerConnection.ISettings;
  #trans: Translator;
  #last = new Map<string, { tag: string; value: unknown }>();

  constructor(settings: ServerConnection.ISettings, trans: Translator) {
    this.#settings = settings;
    this.#trans = trans;
  }

  /** What tells this server from others of the same origin. */
  get server(): string {
    return this.#settings.baseUrl;
  }

  runs = (): Promise<RunList> => this.#ask('runs');

  run = (path: string): Promise<RunPicture> => this.#ask('run', { path });

  contents = (path: string): Promise<RunContents & { plan: Forecast | null }> => this.#ask('run/contents', { path });

  gpus = async (): Promise<Gpu[] | null> => (await this.#ask<{ gpus: Gpu[] | null }>('gpu')).gpus;

  /** What a model file or adapter folder says of itself. */
  inspect = (path: string): Promise<Inspection> => this.#ask('inspect', { path });

  /** The names of the folders directly in a folder that hold an adapter. */
  adapters = async (path: string): Promise<string[]> => (await this.#ask<{ folders: string[] }>('inspect/adapters', { path })).folders;

  /** Ask a live run for something after its step. */
  ask = (path: string, wish: Wish): Promise<unknown> => this.#ask('run/ask', { path, for: wish }, 'POST');

  /** Ask; what has not changed since the last time is not sent again, and the same object is returned. */
  async #ask<T>(route: string, query: Record<string, string> = {}, method = 'GET'): Promise<T> {
    const url = URLExt.join(this.#settings.baseUrl, 'tunebook', route) + URLExt.objectToQueryString(query);
    const known = method === 'GET' ? this.#last.get(url) : undefined;
    const response = await this.#request(url, { method, ...(known ? { headers: { 'If-None-Match': known.tag } } : {}) });
    if (response.status === 304 && known) {
      return known.value as T;
    }
    const body = await response.json().catch(() => null);
    if (!response.ok || body === null) {
      throw this.#error(response, body);
    }
    const tag = response.headers.get('Etag');
    if (tag && method === 'GET') {
      this.#last.set(url, { tag, value: body });
    }
    return body as T;
  }

  /** Forget the answers about a run that nobody looks at any more. */
  forget(path: string): void {
    const query = URLExt.objectToQueryString({ path });
    for (const url of [...this.#last.keys()].filter(url => url.endsWith(query))) {
      this.#last.delete(url);
    }
  }

  async #request(url: string, init: RequestInit): Promise<Response> {
    try {
      return await ServerConnection.makeRequest(url, init, this.#settings);
    } catch {
      throw new ApiError({
        name: 'ServerUnreachable',
        what: this.#trans.__('The Jupyter server does not answer.'),
        why: this.#trans.__('it was stopped, or the connection to it is broken.'),
        do: this.#trans.__('nothing, if it comes back: this view goes on by itself. Runs go on without it.')
      });
    }
  }

  #error(response: Response, body: { error?: ThreePartError; message?: string } | null): ApiError {
    if (body?.error?.what) {
      return new ApiError(body.error);
    }
    if (response.status === 404) {
      return new ApiError(
        {
          name: 'ServerExtensionMissing',
          what: this.#trans.__('This view needs a part of Tunebook in the Jupyter server.'),
          why: this.#trans.__('the server extension `tunebook.server` is not installed or not enabled there.'),
          do: this.#trans.__(
            'run `pip install tunebook` and `jupyter server extension enable tunebook.server` in the environment that starts Jupyter, and restart it. Panels in notebooks work without.'
          )
        },
        true
      );
    }
    return new ApiError({
      name: 'ServerRefused',
      what: this.#trans.__('The Jupyter server did not answer as it should.'),
      why: this.#trans.__('it answered %1: %2', response.status, body?.message ?? response.statusText),
      do: this.#trans.__('log in again if your session has ended; else look at the log of the server.')
    });
  }
}

/** Whatever was thrown, in three parts. */
export function parts(error: unknown, trans: Translator): ThreePartError {
  return error instanceof ApiError
    ? error.parts
    : {
        name: 'Unexpected',
        what: trans.__('This view cannot be drawn.'),
        why: String(error),
        do: trans.__('reload the page; if it comes again, report it with the browser’s console.')
      };
}
