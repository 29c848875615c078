// Builds the npm package into dist, and what the gateway serves as client.js into its own source.
import { execFileSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const served = process.argv[2] ?? here('../src/endpoints/client_js');

rmSync(here('dist'), { recursive: true, force: true });
execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc')], { cwd: here('.'), stdio: 'inherit' });
await build({
  absWorkingDir: here('.'),
  entryPoints: ['src/index.ts'],
  outfile: `${served}/client.js`,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  sourcemap: true,
});
copyFileSync(here('dist/index.d.ts'), `${served}/client.d.ts`);
