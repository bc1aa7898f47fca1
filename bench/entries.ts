/** The entries of `npm run bench`, by name. Each is loaded when it is measured. */
import type { Entry } from './harness/figure.js';

type Load = () => Promise<{ readonly entry: Entry }>;

export const ENTRIES = {
  save: () => import('./entries/save.js'),
  fill: () => import('./entries/fill.js'),
  startup: () => import('./entries/startup.js'),
  density: () => import('./entries/density.js'),
  pauses: () => import('./entries/pauses.js'),
  images: () => import('./entries/images.js'),
  peers: () => import('./entries/peers.js'),
  'peer-images': () => import('./entries/peer-images.js'),
} satisfies Record<string, Load>;

export type EntryName = keyof typeof ENTRIES;

/** What `npm run bench` measures when no entry is named: all that need no other program. */
export const BY_DEFAULT = (Object.keys(ENTRIES) as EntryName[]).filter((name) => !name.startsWith('peer'));

export const isEntryName = (name: string): name is EntryName => Object.hasOwn(ENTRIES, name);
