import { LabIcon } from '@jupyterlab/ui-components';

/** A loss curve that falls towards a tuned note; coloured by JupyterLab's theme. */
export const tunebookIcon = new LabIcon({
  name: 'tunebook:icon',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="none" stroke="#616161" stroke-width="2" stroke-linecap="round" d="M3 3v16a2 2 0 0 0 2 2h16"/>
  <path fill="none" stroke="#1666c5" stroke-width="2.4" stroke-linecap="round" stroke-linejoin="round" d="M6.5 6c1.500 6.500 4 9.500 7 10.300"/>
  <ellipse cx="16.200" cy="16.200" rx="2.800" ry="2.200" transform="rotate(-18 16.200 16.200)" fill="#1666c5"/>
  <path fill="none" stroke="#1666c5" stroke-width="1.800" stroke-linecap="round" d="M18.600 15.400V6.500c.4 1.600 1.400 2.200 2.400 3"/>
</svg>`
});
