/**
 * The list of verbs, by group, in the order of the help, each with its summary. The file of a verb is loaded only when
 * the verb is called.
 */
import type { VerbEntry } from './verb.js';

type Listing = Omit<VerbEntry, 'group'>;

const listed = (summary: string, load: VerbEntry['load'], aliases: Listing['aliases'] = {}): Listing => ({
  summary,
  load,
  isHidden: false,
  aliases,
});
const hidden = (summary: string, load: VerbEntry['load']): Listing => ({
  summary,
  load,
  isHidden: true,
  aliases: {},
});

const GROUPS: Record<string, Record<string, Listing>> = {
  Machines: {
    start: listed('Boot a machine and attach to its console', () => import('./start.js')),
    ps: listed('List machines', () => import('./ps.js')),
    logs: listed("Show a guest's output, or a machine's log", () => import('./logs.js')),
    console: listed("Attach to a machine's console", () => import('./console.js'), { attach: [] }),
    pause: listed('Pause a machine', () => import('./pause.js')),
    resume: listed('Resume a paused machine', () => import('./resume.js')),
    stop: listed('Stop machines, or clean up dead ones', () => import('./stop.js'), { kill: ['--force'] }),
  },
  Snapshots: {
    save: listed('Save a machine as a snapshot', () => import('./save.js')),
    restore: listed('Restore a machine from a snapshot', () => import('./restore.js')),
    fork: listed('Start clones of a machine or of a snapshot', () => import('./fork.js')),
    ls: listed('List snapshots', () => import('./ls.js')),
    show: listed('Show details of a snapshot or a machine', () => import('./show.js'), { inspect: [] }),
    diff: listed('Show how much two snapshots, or two regions, differ', () => import('./diff.js')),
    tag: listed('Add tags to a snapshot; a tag in use moves', () => import('./tag.js')),
    untag: listed('Remove tags and keep their snapshots', () => import('./untag.js')),
    rm: listed('Remove snapshots', () => import('./rm.js'), { delete: [] }),
    forget: listed('Remove snapshots that a policy does not keep', () => import('./forget.js')),
  },
  Store: {
    stats: listed('Show store statistics', () => import('./stats.js')),
    gc: listed('Delete unreferenced data', () => import('./gc.js')),
    check: listed('Check the store for damage', () => import('./check.js')),
    repair: listed('Rebuild the index and heal damaged data', () => import('./repair.js')),
  },
  Transfer: {
    copy: listed('Copy snapshots to or from another store', () => import('./copy.js')),
    export: listed('Export one snapshot to a directory', () => import('./export.js')),
    import: listed('Import a directory that export made', () => import('./import.js')),
    'serve-store': hidden(
      'Serve copies over ssh: the copy protocol on stdin and stdout',
      () => import('./serve-store.js'),
    ),
  },
  Files: {
    put: listed('Store a file as a snapshot', () => import('./put.js')),
    get: listed('Write a stored file to a path', () => import('./get.js')),
    disk: listed('Write a disk of a saved machine to a path', () => import('./disk.js')),
  },
  Host: {
    doctor: listed('Check this host and the installation', () => import('./doctor.js')),
    demo: listed('See a machine saved, forked and restored', () => import('./demo.js')),
    fit: listed('Check whether a snapshot fits a host', () => import('./fit.js')),
    serve: listed('Serve a page and an API for this host', () => import('./serve.js')),
    open: listed("Open the server's page in the browser", () => import('./open.js')),
    completion: listed('Print a script that completes commands in a shell', () => import('./completion.js')),
    'list-names': hidden('List names for completion scripts', () => import('./list-names.js')),
  },
};

interface Alias {
  readonly verb: string;
  readonly options: readonly string[];
}

export const VERBS: ReadonlyMap<string, VerbEntry> = new Map(
  Object.entries(GROUPS).flatMap(([group, verbs]) =>
    Object.entries(verbs).map(([name, listing]) => [name, { group, ...listing }] as const),
  ),
);

/** Every alias. */
export const ALIASES: ReadonlyMap<string, Alias> = new Map(
  [...VERBS].flatMap(([verb, { aliases }]) =>
    Object.entries(aliases).map(([alias, options]) => [alias, { verb, options }] as const),
  ),
);

/** `attach`; `kill (stop --force)`. */
export const aliasesOf = (verb: string): string[] =>
  Object.entries(VERBS.get(verb)?.aliases ?? {}).map(([alias, options]) =>
    options.length === 0 ? alias : `${alias} (${[verb, ...options].join(' ')})`,
  );
