/** The list of verbs, by group, in the order of the help. The file of a verb is loaded only when the verb is needed. */
import type { Verb } from './verb.js';

type LoadVerb = () => Promise<{ readonly verb: Verb }>;

const GROUPS: Record<string, Record<string, LoadVerb>> = {
  Machines: {
    start: () => import('./start.js'),
    ps: () => import('./ps.js'),
    console: () => import('./console.js'),
    pause: () => import('./pause.js'),
    resume: () => import('./resume.js'),
    stop: () => import('./stop.js'),
  },
  Snapshots: {
    save: () => import('./save.js'),
    restore: () => import('./restore.js'),
    ls: () => import('./ls.js'),
    show: () => import('./show.js'),
    diff: () => import('./diff.js'),
    tag: () => import('./tag.js'),
    rm: () => import('./rm.js'),
  },
  Store: {
    stats: () => import('./stats.js'),
    gc: () => import('./gc.js'),
    check: () => import('./check.js'),
    repair: () => import('./repair.js'),
  },
  Transfer: {
    copy: () => import('./copy.js'),
    export: () => import('./export.js'),
    import: () => import('./import.js'),
    'serve-store': () => import('./serve-store.js'),
  },
  Files: {
    put: () => import('./put.js'),
    get: () => import('./get.js'),
    disk: () => import('./disk.js'),
  },
  Host: {
    doctor: () => import('./doctor.js'),
    fit: () => import('./fit.js'),
  },
};

export interface VerbEntry {
  readonly group: string;
  readonly load: LoadVerb;
}

export const VERBS: ReadonlyMap<string, VerbEntry> = new Map(
  Object.entries(GROUPS).flatMap(([group, verbs]) =>
    Object.entries(verbs).map(([name, load]) => [name, { group, load }] as const),
  ),
);
