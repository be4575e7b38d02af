/** The plugins of the JupyterLab extension, one file each. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { cells } from './cells.ts';
import { chooseRun } from './choose_run.ts';
import { guide } from './guide.ts';
import { inspection } from './inspection.ts';
import { previewData } from './preview.ts';
import { runDocument } from './run_document.ts';
import { runs } from './runs.ts';
import { status } from './status.ts';

const plugins = [guide, cells, previewData, chooseRun, inspection, runs, runDocument, status] as JupyterFrontEndPlugin<unknown>[];

export default plugins;
