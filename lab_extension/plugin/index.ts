/** The plugins of the JupyterLab extension, one file each. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { guide } from './guide';
import { runDocument } from './run_document';
import { runs } from './runs';
import { status } from './status';

const plugins: JupyterFrontEndPlugin<unknown>[] = [guide, runs, runDocument, status] as JupyterFrontEndPlugin<unknown>[];

export default plugins;
