/** What the user set in JupyterLab's settings for new cells. */

import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import type { Defaults } from './code.ts';

/** The plugin whose schema holds the settings. */
export const SETTINGS = 'tunebook:plugin';

/** The settings as they are now; without a registry, or before it answers, Tunebook's own. */
export async function defaults(registry: ISettingRegistry | null): Promise<Defaults> {
  try {
    const composite = (await registry?.load(SETTINGS))?.composite;
    return { model: text(composite?.['defaultModel']), runs: text(composite?.['runsFolder']) };
  } catch (error) {
    console.warn('Tunebook goes on without its settings:', error);
    return { model: '', runs: '' };
  }
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.trim() : '';
}
