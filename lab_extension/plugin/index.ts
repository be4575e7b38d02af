/** The plugins of the JupyterLab extension, one file each. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { guide } from './guide';

const plugins: JupyterFrontEndPlugin<unknown>[] = [guide];

export default plugins;
