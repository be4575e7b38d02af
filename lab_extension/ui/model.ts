/** The little of anywidget's model that the panels use, with types. */

export interface AnyModel<T extends object> {
  get<K extends keyof T & string>(name: K): T[K];
  set<K extends keyof T & string>(name: K, value: T[K]): void;
  save_changes(): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  on(event: string, callback: () => void): void;
  off(event: string, callback: () => void): void;
  /** JupyterLab's manager has a kernel; Colab's has not. */
  widget_manager?: { kernel?: { interrupt?: () => unknown } };
}

export interface RenderProps<T extends object> {
  model: AnyModel<T>;
  el: HTMLElement;
}

export interface ThreePartError {
  name?: string;
  what?: string;
  why?: string;
  do?: string;
  traceback?: string;
}

export interface FieldInfo {
  path: string;
  title: string;
  description: string;
  type: 'string' | 'integer' | 'number' | 'boolean' | 'choice' | 'list';
  default: unknown;
  optional: boolean;
  minimum: number | null;
  maximum: number | null;
  exclusive_minimum: number | null;
  exclusive_maximum: number | null;
  choices: unknown[] | null;
  unit: string | null;
  link: string | null;
  advanced: boolean;
  group: string;
}

export interface Refused {
  typed: unknown;
  message: string;
}

/** The traits that every panel has. */
export interface PanelState {
  heading: string;
  lead: string;
  number: number;
  unfolded: boolean;
  summary: string;
  busy: string;
  error: ThreePartError;
  code_open: boolean;
  code: { python?: string; shell?: string };
  fields: FieldInfo[];
  values: Record<string, unknown>;
  invalid: Record<string, Refused>;
}

/** Things to undo when a view goes away. */
export class Cleanup {
  #undo: (() => void)[] = [];

  add(undo: () => void): void {
    this.#undo.push(undo);
  }

  run = (): void => {
    for (const undo of this.#undo.splice(0)) {
      undo();
    }
  };
}

/** Draw now and whenever one of the traits changes; several changes in one message draw once. */
export function follow<T extends object>(
  model: AnyModel<T>,
  names: (keyof T & string)[],
  draw: () => void,
  cleanup: Cleanup
): void {
  let asked = false;
  const later = (): void => {
    if (!asked) {
      asked = true;
      queueMicrotask(() => {
        asked = false;
        draw();
      });
    }
  };
  for (const name of names) {
    model.on(`change:${name}`, later);
    cleanup.add(() => model.off(`change:${name}`, later));
  }
  draw();
}
