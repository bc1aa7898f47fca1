// Bundles the program: one file for the command and one for each kind of process and thread, in dist/bin.
//
// dist/bin/NAME.js loads dist/bin/code/NAME-HASH.js, the bundle of an entry, with V8's code cache of it for this major
// version of Node, NAME-HASH.js.MAJOR.cache. With --caches only the caches for the running Node are made. An entry names
// another one as `new URL('./NAME.js', import.meta.url)`, which is right beside the modules in dist/src too.
//
// Invariants:
// - What a file names by import.meta.url is in dist/bin. Otherwise the build fails: see `checkUrls`.
// - A cache is of exactly the code beside it, because the names of both have the hash of the code. V8 itself compares
//   only the length of the code, its own version and its flags. Where these differ, the code is compiled.
// - Outside comments, a bundle is ASCII: the loader reads it as Latin-1, which V8 keeps in one byte a character. esbuild
//   escapes all other characters except in tagged templates and regular expressions. With one there, the build fails:
//   see `checkCharacters`.
// - With source maps enabled, or LIVESNAP_DEBUG set, stacks name the lines of src.
//
// CommonJS, because Node has no code cache for ES modules, and because an import of a built-in module is loaded where it
// is used, not before everything else (bench/README.md, "Targets").
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';
import { build, transform } from 'esbuild';

/** The entries: the command, the machine's process, and every Worker. */
export const ENTRIES = {
  livesnap: 'src/cli/main.ts',
  'host-server': 'src/server/host-server.ts',
  'job-process': 'src/jobs/job-process.ts',
  'store-queries': 'src/server/store-queries.ts',
  'machine-process': 'src/machine/machine-process.ts',
  'device-thread': 'src/vmm/device-thread.ts',
  'store-thread': 'src/machine/store-thread.ts',
  'page-worker': 'src/store/worker/page-worker.ts',
};

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, 'dist/bin');

/** Uses of import.meta.url that name no file beside the bundle. */
const HARMLESS = {
  'src/native/modules.ts': 'createRequire(import.meta.url)',
  'src/native/project-root.ts': 'dirname(fileURLToPath(import.meta.url))',
};

/**
 * Fails unless each file that the source of a bundle names by its own address is an entry. A Worker has no other way to
 * name its code.
 */
export function checkUrls(file, text) {
  const rest = text
    .replace(/^\s*(\/\/|\/?\*).*$/gm, '')
    .replace(HARMLESS[file], '')
    .replace(/new URL\('\.\/([^'/]+)\.js', import\.meta\.url\)/g, (found, name) => {
      if (ENTRIES[name] === join(dirname(file), `${name}.ts`)) return '';
      throw new Error(`${file}: ${found} is no entry of a bundle: add it to ENTRIES of scripts/bundle.mjs`);
    });
  if (/\bimport\.meta\b|\bnew Worker\(['"`]/.test(rest))
    throw new Error(
      `${file}: a bundle has another address: name an entry by new URL('./NAME.js', import.meta.url), and other files ` +
        'by projectRoot',
    );
}

/** Fails if a bundle has a character that its loader would misread. */
export async function checkCharacters(name, text) {
  const { code } = await transform(text, { minifyWhitespace: true, legalComments: 'none' });
  const at = code.search(/[^\p{ASCII}]/u);
  if (at >= 0)
    throw new Error(
      `${name} has ${code[at]} in a tagged template or a regular expression: …${code.slice(Math.max(0, at - 40), at + 40)}…\n` +
        'Write it as a value of the template, or as an escape.',
    );
}

/** The function around a bundle. */
const OPENING = '(function (require, module, __filename) {';
const CLOSING = '\\n})';

/** The source of dist/bin/NAME.js. */
const loader = (code) => `#!/usr/bin/env node
'use strict';
// Made by scripts/bundle.mjs, which describes it.
const file = \`\${__dirname}/code/${code}\`;
if (process.env.LIVESNAP_DEBUG) process.setSourceMapsEnabled(true);
if (process.sourceMapsEnabled) require(file);
else {
  const { readFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  let cachedData;
  try {
    cachedData = readFileSync(\`\${file}.\${parseInt(process.versions.node, 10)}.cache\`);
  } catch {
    // The code is compiled.
  }
  const source = \`${OPENING}\${readFileSync(file, 'latin1')}${CLOSING}\`;
  new Script(source, { filename: file, cachedData }).runInThisContext()(require, module, file);
}
`;

/** The file of a bundle's cache, as its loader names it. */
const cacheOf = (file) => `${file}.${Number.parseInt(process.versions.node, 10)}.cache`;

/** Compiles a bundle as its loader does. */
const compile = (file) => new Script(`${OPENING}${readFileSync(file, 'latin1')}\n})`, { filename: file });

/** Writes the cache of what a short command compiles, which is more than what starts a bundle. */
function recordCommand(file) {
  const store = mkdtempSync(join(tmpdir(), 'livesnap-build-'));
  const self = fileURLToPath(import.meta.url);
  const env = { ...process.env, LIVESNAP_STORE: store };
  // Where the addon is not built, these fail. Then the cache has less.
  for (const args of [['put', self], ['ls']])
    spawnSync(process.execPath, [self, '--record', file, ...args], { env, stdio: 'ignore' });
  rmSync(store, { recursive: true, force: true });
}

/** Runs a bundle with these arguments, and then writes the code cache of what it has compiled. */
function record([file, ...args]) {
  const script = compile(file);
  process.argv = [process.execPath, file, ...args];
  process.once('exit', () => writeFileSync(cacheOf(file), script.createCachedData()));
  script.runInThisContext()(createRequire(file), { exports: {} }, file);
}

/** Writes the caches of all bundles for the running Node. */
function writeCaches(dir) {
  for (const name of readdirSync(dir).filter((each) => each.endsWith('.js'))) {
    const file = join(dir, name);
    writeFileSync(cacheOf(file), compile(file).createCachedData());
    if (name.startsWith('livesnap-')) recordCommand(file);
  }
}

/** Takes over caches that other versions of Node made of the same code. */
function keepCaches(from, to) {
  if (!existsSync(from)) return;
  for (const name of readdirSync(from)) {
    const [, code] = /^(.*\.js)\.\d+\.cache$/.exec(name) ?? [];
    if (code !== undefined && existsSync(join(to, code)) && !existsSync(join(to, name)))
      copyFileSync(join(from, name), join(to, name));
  }
}

async function bundle() {
  mkdirSync(dirname(target), { recursive: true });
  const draft = mkdtempSync(join(dirname(target), '.bin-'));
  try {
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: ENTRIES,
      outdir: join(draft, 'code'),
      entryNames: '[name]-[hash]',
      bundle: true,
      platform: 'node',
      target: 'node20.12',
      format: 'cjs',
      sourcemap: 'linked',
      sourcesContent: false,
      define: { 'import.meta.url': 'entryUrl' },
      banner: {
        js: "const entryUrl = new URL('../entry.js', require('node:url').pathToFileURL(__filename)).href;",
      },
      metafile: true,
      logLevel: 'warning',
    });
    for (const file of Object.keys(metafile.inputs))
      if (file.startsWith('src/')) checkUrls(file, readFileSync(join(root, file), 'utf8'));
    for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
      if (entryPoint === undefined) continue;
      const [name] = Object.entries(ENTRIES).find(([, source]) => source === entryPoint);
      await checkCharacters(name, readFileSync(join(root, path), 'utf8'));
      writeFileSync(join(draft, `${name}.js`), loader(basename(path)), { mode: 0o755 });
    }
    writeCaches(join(draft, 'code'));
    keepCaches(join(target, 'code'), join(draft, 'code'));
    writeFileSync(join(draft, 'package.json'), '{ "type": "commonjs" }\n');
    chmodSync(draft, 0o755);
    rmSync(target, { recursive: true, force: true });
    renameSync(draft, target);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === '--record') record(process.argv.slice(3));
  else if (process.argv[2] === '--caches') writeCaches(join(target, 'code'));
  else await bundle();
}
