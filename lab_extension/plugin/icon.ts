/** The icons of the extension: grey of JupyterLab's theme, and its blue for what Tunebook adds. */

import { LabIcon } from '@jupyterlab/ui-components';

const GREY = 'class="jp-icon3" stroke="#616161" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"';
const BLUE = 'class="jp-icon-brand1" stroke="#1976d2" stroke-linecap="round" stroke-linejoin="round"';

function icon(name: string, drawing: string): LabIcon {
  // the lines are not filled by an attribute of theirs: the theme colours each `fill` that it finds
  const svgstr = `<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24"><g fill="none">${drawing}</g></svg>`;
  return new LabIcon({ name: `tunebook:${name}`, svgstr });
}

/** A loss curve that falls towards a tuned note. */
export const tunebookIcon = icon(
  'icon',
  `<path ${GREY} d="M3 3v16a2 2 0 0 0 2 2h16"/>
  <path ${BLUE} stroke-width="2.4" d="M6.5 6c1.500 6.500 4 9.500 7 10.300"/>
  <ellipse class="jp-icon-brand1" cx="16.200" cy="16.200" rx="2.800" ry="2.200" transform="rotate(-18 16.200 16.200)" fill="#1976d2"/>
  <path ${BLUE} stroke-width="1.800" d="M18.600 15.400V6.500c.4 1.600 1.400 2.200 2.400 3"/>`
);

/** Rows of which one is found good. */
export const dataIcon = icon(
  'data',
  `<path ${GREY} d="M10.500 20H5a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2h14a2 2 0 0 1 2 2v5"/>
  <path ${GREY} d="M7 8.500h10M7 12.500h5M7 16.500h3"/>
  <path ${BLUE} stroke-width="2.400" d="M14 17.500l2.600 2.600L21.500 15"/>`
);

/** A folder with a curve in it. */
export const runIcon = icon(
  'run',
  `<path ${GREY} d="M3 18V6a2 2 0 0 1 2-2h4.200l2.300 2.500H19a2 2 0 0 1 2 2V18a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z"/>
  <path ${BLUE} stroke-width="2.200" d="M7 10.500c1 4 2.600 5.700 5 5.700s3-1.200 5-1.400"/>`
);

/** Layers under a lens. */
export const inspectIcon = icon(
  'inspect',
  `<path ${GREY} d="M3.500 8L11 4l7.500 4L11 12z"/>
  <path ${GREY} d="M3.500 12.500L9 15.500M3.500 17L9 20"/>
  <circle ${BLUE} stroke-width="2.200" cx="15.500" cy="16" r="3.700"/>
  <path ${BLUE} stroke-width="2.400" d="M18.400 18.900L21.500 22"/>`
);
