// Bundles one anywidget module per panel, and the one style sheet, into the Python package.
import { build } from 'esbuild';
import { readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, '..', 'widgets');
const target = join(here, '..', '..', 'src', 'tunebook', 'widgets', 'static');
const most = 200_000; // bytes; a module that loads slowly renders once and then never again

const panels = readdirSync(source).filter(name => name.endsWith('.ts'));
const common = { bundle: true, minify: true, target: 'es2022', outdir: target, logLevel: 'warning' };
await build({
  ...common,
  entryPoints: panels.map(name => join(source, name)),
  format: 'esm',
  charset: 'utf8'
});
await build({ ...common, entryPoints: [join(here, '..', 'style', 'panels.css')] });

for (const name of [...panels.map(panel => basename(panel, '.ts') + '.js'), 'panels.css']) {
  const size = statSync(join(target, name)).size;
  process.stdout.write(`${name.padEnd(14)} ${(size / 1000).toFixed(1).padStart(6)} kB\n`);
  if (size > most) {
    throw new Error(`${name} is larger than ${most} bytes`);
  }
}
