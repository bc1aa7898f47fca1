// Bundles the page of the server into dist/web: index.html, and app/ with scripts and styles.
//
// Names of files in app/ have the hash of their content, so browsers may keep them for ever. The terminal is a part of
// its own, which the page loads when a console is opened.
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'src/web');
const target = join(root, 'dist/web');
const STYLES = ['tokens.css', 'page.css', '../../node_modules/@xterm/xterm/css/xterm.css'];

mkdirSync(dirname(target), { recursive: true });
const draft = mkdtempSync(join(dirname(target), '.web-'));
try {
  const common = {
    absWorkingDir: root,
    outdir: join(draft, 'app'),
    bundle: true,
    minify: true,
    metafile: true,
  };
  const scripts = await build({
    ...common,
    entryPoints: { main: join(source, 'app.tsx') },
    entryNames: '[name]-[hash]',
    chunkNames: '[name]-[hash]',
    format: 'esm',
    splitting: true,
    target: ['chrome110', 'firefox115', 'safari16.4'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'linked',
    logLevel: 'warning',
  });
  const styles = await build({
    ...common,
    stdin: {
      contents: STYLES.map((file) => `@import ${JSON.stringify(`./${file}`)};`).join('\n'),
      loader: 'css',
      resolveDir: source,
      sourcefile: 'style.css',
    },
    entryNames: 'style-[hash]',
    target: ['chrome110', 'firefox115', 'safari16.4'],
    logLevel: 'warning',
  });
  const nameOf = ({ metafile }) =>
    basename(Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint !== undefined)[0]);
  const html = readFileSync(join(source, 'index.html'), 'utf8')
    .replace('/app/STYLE', `/app/${nameOf(styles)}`)
    .replace('/app/MAIN', `/app/${nameOf(scripts)}`);
  writeFileSync(join(draft, 'index.html'), html);
  chmodSync(draft, 0o755);
  rmSync(target, { recursive: true, force: true });
  renameSync(draft, target);
} finally {
  rmSync(draft, { recursive: true, force: true });
}
