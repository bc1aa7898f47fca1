/**
 * How the rooms of src/ may know each other. ARCHITECTURE.md draws it; this holds the code to it.
 *
 * Imports of types count as well: a reader follows them just the same.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import ts from 'typescript';
import { projectRoot } from '../../src/native/project-root.js';

/** Which top-level rooms and files of src/ each of them may import. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  cli: [
    ...['host', 'server', 'machine', 'vmm', 'store', 'native', 'labels', 'format', 'glob'],
    ...[
      'chosen-store',
      'config',
      'small-file',
      'environment',
      'notes',
      'page-stream',
      'region-places',
      'schema',
      'token-file',
      'errors',
    ],
  ],
  host: [
    ...['machine', 'vmm', 'store', 'native'],
    ...[
      'chosen-store',
      'environment',
      'format',
      'glob',
      'labels',
      'notes',
      'page-stream',
      'schema',
      'token-file',
      'unless-aborted',
      'errors',
    ],
  ],
  web: ['server', 'format'],
  jobs: ['host', 'machine', 'native', 'environment', 'notes', 'unless-aborted', 'errors'],
  server: [
    ...['host', 'jobs', 'machine', 'vmm', 'store', 'native', 'environment', 'secret', 'token-file'],
    ...['format', 'notes', 'unless-aborted', 'errors'],
  ],
  machine: ['vmm', 'store', 'native', 'environment', 'labels', 'page-stream', 'schema', 'secret', 'errors'],
  secret: [],
  'token-file': ['environment', 'secret', 'errors'],
  'chosen-store': ['config', 'environment'],
  config: ['small-file', 'environment', 'schema', 'errors'],
  'small-file': ['errors'],
  labels: ['schema', 'errors'],
  vmm: ['native', 'format', 'labels', 'page-stream', 'schema', 'bit-set', 'unless-aborted', 'errors'],
  'unless-aborted': [],
  store: [
    'format',
    'glob',
    'labels',
    'native',
    'environment',
    'notes',
    'page-stream',
    'region-places',
    'schema',
    'bit-set',
    'errors',
  ],
  native: ['page-stream', 'errors'],
  environment: ['notes', 'errors'],
  notes: [],
  'page-stream': [],
  'region-places': [],
  schema: [],
  'bit-set': [],
  format: [],
  glob: [],
  errors: [],
};

/** The floors of src/store, from the top. A file imports from its own room and from floors below. */
const STORE_FLOORS = [
  'remote',
  'store',
  'list',
  'open-store',
  'statistics',
  'unique-bytes',
  'page-map',
  'copy',
  'file',
  'repair',
  'diff',
  'check',
  'save',
  'gc',
  'stored-snapshot',
  'memory-fills',
  'stored-region',
  'tags',
  'pins',
  'context',
  'worker',
  'index',
  'segment',
  'snapshot',
  'types',
  'pack',
  'disk',
];

const SRC = join(projectRoot, 'src');

/** Every file of src/ with the files of src/ that it imports, statically or by `import()`; paths relative to src/. */
function importGraph(): Map<string, string[]> {
  const files = (readdirSync(SRC, { recursive: true }) as string[]).filter((file) => /\.tsx?$/.test(file));
  return new Map(
    files.map((file) => {
      const { importedFiles } = ts.preProcessFile(readFileSync(join(SRC, file), 'utf8'), true, true);
      const imports = importedFiles
        .map(({ fileName }) => fileName)
        .filter((name) => name.startsWith('.'))
        .map((name) => relative(SRC, resolve(SRC, dirname(file), name.replace(/\.js$/, '.ts'))))
        .map((name) => (files.includes(`${name}x`) ? `${name}x` : name));
      for (const target of imports)
        assert(files.includes(target), `${file} imports ${target}, which does not exist`);
      return [file, imports];
    }),
  );
}

const roomOf = (file: string): string => file.split(sep)[0]!.replace(/\.ts$/, '');

/** A circle in a graph, as the nodes along it; null where there is none. */
function findCircle(graph: ReadonlyMap<string, readonly string[]>): readonly string[] | null {
  const finished = new Set<string>();
  const path: string[] = [];
  const visit = (node: string): readonly string[] | null => {
    if (finished.has(node)) return null;
    const seenAt = path.indexOf(node);
    if (seenAt >= 0) return [...path.slice(seenAt), node];
    path.push(node);
    for (const next of graph.get(node) ?? []) {
      const circle = visit(next);
      if (circle) return circle;
    }
    path.pop();
    finished.add(node);
    return null;
  };
  for (const node of graph.keys()) {
    const circle = visit(node);
    if (circle) return circle;
  }
  return null;
}

describe('the structure of src', () => {
  const graph = importGraph();

  it('has no circle of imports', () => {
    assert.equal(findCircle(graph)?.join(' -> ') ?? null, null);
  });

  it('finds a circle where there is one', () => {
    const circle = findCircle(
      new Map([
        ['a', ['b']],
        ['b', ['c', 'd']],
        ['c', []],
        ['d', ['b']],
      ]),
    );
    assert.deepEqual(circle, ['b', 'd', 'b']);
  });

  it('has only the allowed imports between its rooms, and none from vmm to store', () => {
    assert.deepEqual([...new Set([...graph.keys()].map(roomOf))].sort(), Object.keys(MAY_IMPORT).sort());
    for (const [file, imports] of graph)
      for (const target of imports) {
        const [from, to] = [roomOf(file), roomOf(target)];
        assert(from === to || MAY_IMPORT[from]!.includes(to), `${file} must not import ${target}`);
      }
  });

  it('has a store whose rooms import only rooms below', () => {
    const floorOf = (file: string): number => {
      const floor = STORE_FLOORS.indexOf(roomOf(relative('store', file)));
      assert(floor >= 0, `${file} is on no floor of the store`);
      return floor;
    };
    for (const [file, imports] of graph) {
      if (roomOf(file) !== 'store') continue;
      for (const target of imports.filter((each) => roomOf(each) === 'store'))
        assert(
          floorOf(target) >= floorOf(file),
          `${file} must not import ${target}, which is on a floor above`,
        );
    }
  });

  it('loads the addon, and packages with compiled parts, in src/native only', () => {
    const compiled = /^import (?!type )[^;]*'(better-sqlite3|lz4-napi|xxhash-wasm)'/m;
    for (const [file, imports] of graph) {
      if (roomOf(file) === 'native') continue;
      // doctor loads it to see whether it can be loaded.
      if (file !== 'cli/doctor.ts') assert(!imports.includes('native/addon.ts'), `${file} imports the addon`);
      assert.doesNotMatch(readFileSync(join(SRC, file), 'utf8'), compiled, file);
    }
  });

  it('has tests that import better-sqlite3 as it does, because Node 20 crashes when it loads the package', () => {
    const test = join(projectRoot, 'test');
    for (const file of readdirSync(test, { recursive: true }) as string[])
      if (file.endsWith('.ts'))
        assert.doesNotMatch(
          readFileSync(join(test, file), 'utf8'),
          /^\s*import (?!type )[^;]*from 'better-sqlite3'/m,
          `test/${file}: import { Database } from test/sqlite.ts`,
        );
  });

  it('keeps the store out of the main thread of a machine, except for cancelling its waits', () => {
    for (const [file, imports] of graph)
      if (roomOf(file) === 'machine' && file !== 'machine/store-thread.ts')
        for (const target of imports.filter((each) => roomOf(each) === 'store'))
          assert.equal(target, 'store/disk/waits.ts', `${file} must not import ${target}`);
  });

  it('names only files that are beside its bundles', async () => {
    const { checkUrls } = (await import(join(projectRoot, 'scripts/bundle.mjs'))) as {
      checkUrls(file: string, text: string): void;
    };
    for (const file of graph.keys()) checkUrls(`src/${file}`, readFileSync(join(SRC, file), 'utf8'));
    for (const [text, message] of [
      ["new Worker(new URL('./new-thread.js', import.meta.url))", /no entry .* add it to ENTRIES/],
      ["new Worker(new URL('./page-worker.js', import.meta.url))", /no entry/], // of another room
      ["readFileSync(new URL('../../migrations/001.sql', import.meta.url))", /projectRoot/],
      ['join(import.meta.dirname, "x")', /projectRoot/],
      ["new Worker('./new-thread.js')", /new URL/],
    ] as const)
      assert.throws(() => checkUrls('src/machine/launch.ts', text), message);
  });

  it('never waits for a timeout by way of AbortSignal.any, which Node may collect before it fires', () => {
    for (const file of graph.keys())
      assert.doesNotMatch(
        readFileSync(join(SRC, file), 'utf8'),
        /AbortSignal\.any\([^;]*AbortSignal\.timeout/,
        `${file}: use a deadline, or an AbortController with a timer`,
      );
  });

  it('refuses a bundle with a character that its loader misreads', async () => {
    const { checkCharacters } = (await import(join(projectRoot, 'scripts/bundle.mjs'))) as {
      checkCharacters(name: string, text: string): Promise<void>;
    };
    for (const code of ['text`a → b`', 'f(/→/)'])
      await assert.rejects(
        checkCharacters('livesnap', code),
        /livesnap has → in a tagged template or a regular/,
      );
    await checkCharacters('livesnap', 'f(`a → b`, "→") // →'); // esbuild escapes these
  });

  it('is tested by test/kvm with time limits that the tier svm makes longer', () => {
    const dir = join(projectRoot, 'test/kvm');
    for (const file of readdirSync(dir).filter((name) => name.endsWith('.ts')))
      assert.doesNotMatch(
        readFileSync(join(dir, file), 'utf8'),
        /\.timeout\((?!limit\()/,
        `${file}: write this.timeout(limit(MS))`,
      );
  });

  it('has unit tests that mirror it, each named for a file or a room', () => {
    const unit = join(projectRoot, 'test/unit');
    for (const file of readdirSync(unit, { recursive: true }) as string[]) {
      if (!file.endsWith('.test.ts') || file.startsWith('guest') || file === 'structure.test.ts') continue;
      const tested = file.replace(/\.test\.ts$/, '');
      const isThere = graph.has(`${tested}.ts`) || existsSync(join(SRC, tested));
      assert(isThere, `test/unit/${file} tests src/${tested}, which does not exist`);
    }
  });
});
