// Puts the guided notebook, as it is in notebooks/, beside the compiled plugin that opens it.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const notebook = JSON.parse(readFileSync(join(here, '..', '..', 'notebooks', '01_guided.ipynb'), 'utf8'));
for (const cell of notebook.cells) {
  if (cell.cell_type === 'code') {
    cell.outputs = [];
    cell.execution_count = null;
  }
}
const target = join(here, '..', 'lib', 'plugin');
mkdirSync(target, { recursive: true });
writeFileSync(join(target, 'guided.json'), JSON.stringify(notebook, null, 1) + '\n');
