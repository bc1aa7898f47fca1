import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { shortId } from '../format.js';
import { withStore } from '../host/open-store.js';
import { defineVerb } from './verb.js';

/** Shells may insert a name unquoted, and a copied store may have any tag. livesnap makes only names like this. */
const HARMLESS = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Names that mean nothing else to a shell, sorted. */
export const harmless = (names: readonly string[]): string[] =>
  [...new Set(names)].filter((name) => HARMLESS.test(name)).sort();

async function machines(): Promise<string[]> {
  const { listRunDirectories } = await import('../machine/run-directory.js');
  return (await listRunDirectories(runRoot())).map(({ name }) => name);
}

const summaries = (storeDir: string) =>
  withStore(storeDir, { write: false }, (store) =>
    store.list().map(({ id, tags }) => ({ id: shortId(id), tags })),
  );

async function snapshots(storeDir: () => string): Promise<string[]> {
  return (await summaries(storeDir())).flatMap(({ id, tags }) => (tags.length === 0 ? [id] : tags));
}

/** What to list, by the word for it. */
const LISTS: Readonly<Record<string, (storeDir: () => string) => Promise<string[]>>> = {
  machines,
  snapshots,
  // Without a store there may be machines all the same.
  'machines-and-snapshots': async (storeDir) => [
    ...(await machines()),
    ...(await snapshots(storeDir).catch(() => [])),
  ],
  tags: async (storeDir) => (await summaries(storeDir())).flatMap(({ tags }) => tags),
};

export const verb = defineVerb({
  name: 'list-names',
  operands: ['<kind>'],
  options: {},
  async run(call) {
    const kind = call.operands[0]!;
    if (!Object.hasOwn(LISTS, kind))
      throw new LivesnapError('USAGE', `${JSON.stringify(kind)} is not a kind of names`, {
        hint: `Specify ${Object.keys(LISTS).join(', ')}.`,
      });
    // A shell that completes a word has no place for an error.
    const names = await LISTS[kind]!(() => call.storeDir).catch(() => []);
    const found = harmless(names);
    const lines = () => found.join('\n');
    call.output.result(found, lines, lines);
    return 0;
  },
});
