/** The entries of `npm run bench`, by name. Each is loaded when it is measured. */
import type { Entry } from './harness/figure.js';

type Load = () => Promise<{ readonly entry: Entry }>;

export const ENTRIES = {
  save: () => import('./entries/save.js'),
  fill: () => import('./entries/fill.js'),
  lazy: () => import('./entries/lazy.js'),
  startup: () => import('./entries/startup.js'),
  density: () => import('./entries/density.js'),
  pauses: () => import('./entries/pauses.js'),
  images: () => import('./entries/images.js'),
  tap: () => import('./entries/tap.js'),
  peers: () => import('./entries/peers.js'),
  'peer-images': () => import('./entries/peer-images.js'),
} satisfies Record<string, Load>;

export type EntryName = keyof typeof ENTRIES;

/** They need other programs, or root and a Linux guest. */
const BY_NAME: readonly string[] = ['tap', 'peers', 'peer-images'] satisfies EntryName[];

/** What `npm run bench` measures when no entry is named. */
export const BY_DEFAULT = (Object.keys(ENTRIES) as EntryName[]).filter((name) => !BY_NAME.includes(name));

export const isEntryName = (name: string): name is EntryName => Object.hasOwn(ENTRIES, name);
