/** The plugins of the JupyterLab extension, one file each. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { cells } from './cells.ts';
import { chooseRun } from './choose_run.ts';
import { guide } from './guide.ts';
import { inspection } from './inspection.ts';
import { previewData } from './preview.ts';

const plugins: JupyterFrontEndPlugin<unknown>[] = [guide, cells, previewData, chooseRun, inspection];

export default plugins;
