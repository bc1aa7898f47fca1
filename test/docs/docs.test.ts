/** Every command of README.md and docs/ exists, and is run: see CONTRIBUTING.md, "Documentation". */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { VERBS } from '../../src/cli/verbs.js';
import { projectRoot } from '../../src/native/addon.js';
import { missingForSsh } from '../e2e/ssh-server.js';
import { requireKvm } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { invocations, type Page, readPage } from './page.js';
import { PageRunner, SYSTEM_PATH } from './run-page.js';

/** The reference shows forms of commands, which are no session: only their verbs and options are checked. */
const REFERENCE = 'docs/cli.md';

const COMMON_OPTIONS = ['--store', '--json', '--quiet', '--help', '--version'];

const names = [
  'README.md',
  ...(readdirSync(join(projectRoot, 'docs'), { recursive: true }) as string[])
    .filter((file) => file.endsWith('.md'))
    .sort()
    .map((file) => `docs/${file}`),
];
const pages = names.map((name) => {
  const text = readFileSync(join(projectRoot, name), 'utf8');
  return { name, text, page: readPage(text) };
});

describe('the documentation', function () {
  this.timeout(limit(120_000));

  for (const { name, page } of pages)
    if (name !== REFERENCE)
      it(`says of each command in ${name} how it is tested`, () => {
        assert.deepEqual(page.faults, []);
      });

  it('lists every page in docs/README.md', () => {
    const index = pages.find(({ name }) => name === 'docs/README.md')!.text;
    const unlisted = names.filter(
      (name) => name !== 'docs/README.md' && !index.includes(`(${relative('docs', name)}`),
    );
    assert.deepEqual(unlisted, []);
  });

  it('has no line of prose longer than 120 characters', () => {
    const long = pages.flatMap(({ name, text }) =>
      text
        .replace(/^```[\s\S]*?^```/gm, (block) => block.replace(/[^\n]/g, ''))
        .split('\n')
        .flatMap((line, i) => (line.length > 120 && !line.startsWith('|') ? [`${name}:${i + 1}`] : [])),
    );
    assert.deepEqual(long, []);
  });

  it('names only verbs and options that exist', async () => {
    const options = new Map<string, Set<string>>();
    for (const [verb, { load, aliases }] of VERBS) {
      const specs = Object.values((await load()).verb.options);
      const flags = specs.flatMap((spec) => spec.flags.match(/--[a-z-]+/g) ?? []);
      const known = new Set([...flags, ...COMMON_OPTIONS]);
      for (const name of [verb, ...Object.keys(aliases)]) options.set(name, known);
    }
    const wrong: string[] = [];
    for (const { name, text, page } of pages) {
      const spans = [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`\n]*)`/g)].map(
        ([, span]) => span!,
      );
      for (const code of [...page.blocks.map((block) => block.text), ...spans])
        for (const { verb, options: used } of invocations(code)) {
          if (!options.has(verb)) wrong.push(`${name}: livesnap ${verb}`);
          else
            for (const option of used)
              if (!options.get(verb)!.has(option)) wrong.push(`${name}: livesnap ${verb} ${option}`);
        }
    }
    assert.deepEqual(wrong, []);
  });

  it('has no link to a file or a heading that does not exist', () => {
    const broken: string[] = [];
    for (const { name, text } of pages) {
      const prose = text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '');
      for (const [, target] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target!)) continue;
        const [path, anchor] = target!.split('#') as [string, string | undefined];
        const file = path === '' ? join(projectRoot, name) : join(projectRoot, dirname(name), path);
        if (!existsSync(file)) broken.push(`${name}: ${target}`);
        else if (anchor !== undefined && file.endsWith('.md') && !anchors(file).has(anchor))
          broken.push(`${name}: ${target}`);
      }
    }
    assert.deepEqual(broken, []);
  });

  describe('runs', () => {
    before(function () {
      requireKvm(this);
    });
    let runner: PageRunner | null = null;
    afterEach(async function () {
      if (runner !== null && this.currentTest?.isFailed())
        process.stderr.write(`    the last command: ${runner.describeLast()}\n`);
      await runner?.end();
      runner = null;
    });

    for (const { name, page } of pages)
      if (name !== REFERENCE && page.steps.length > 0)
        it(`the commands of ${name}`, async function () {
          const needsSsh = page.steps.some(({ commands }) => /(^|\s)ssh(:\/\/| )/.test(commands));
          const missing = (needsSsh ? missingForSsh() : null) ?? missingProgram(page);
          if (missing !== null) {
            process.stderr.write(`    SKIPPED, not tested: ${name}: ${missing}\n`);
            this.skip();
          }
          runner = new PageRunner();
          if (needsSsh) await runner.startSsh();
          await runner.run(name, page);
        });
  });
});

/** Programs of other packages that pages use. */
const PROGRAMS = ['curl', 'debugfs', 'mkfs.ext4', 'python3'];

function missingProgram({ steps }: Page): string | null {
  const missing = PROGRAMS.find(
    (program) =>
      steps.some(
        ({ commands, keys }) => commands.split(/\s/).includes(program) || (keys && program === 'python3'),
      ) && !SYSTEM_PATH.split(':').some((dir) => existsSync(join(dir, program))),
  );
  return missing === undefined ? null : `${missing} is not installed`;
}

/** The anchors of a page's headings, as GitHub makes them. */
function anchors(file: string): Set<string> {
  const headings = readFileSync(file, 'utf8')
    .replace(/^```[\s\S]*?^```/gm, '')
    .matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}
