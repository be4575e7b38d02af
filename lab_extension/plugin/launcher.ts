/** Where the extension's cards stand in the launcher: a category of their own, after the notebooks. */

import type { ILauncher } from '@jupyterlab/launcher';
import type { TranslationBundle } from '@jupyterlab/translation';

/** Category and its place; JupyterLab before 4.6 knows no places and puts it last. */
export function launcherPlace(trans: TranslationBundle): Pick<ILauncher.IItemOptions, 'category'> {
  return { category: trans.__('Fine-tuning'), categoryRank: 10 } as ILauncher.IItemOptions;
}
