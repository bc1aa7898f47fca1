/** The option that says which snapshots a verb is about, for the verbs that have it. */
import { parseSnapshotFilter } from '../host/snapshot-filter.js';
import { repeated } from './verb.js';

export const snapshotFilter = (help: string) => repeated('--filter <filter>', help, parseSnapshotFilter);

/** For the notes of these verbs. */
export const FILTER_NOTES = [
  'FILTER is one of:',
  '  label=KEY, label=KEY=VALUE    a label of the machine',
  '  name=PATTERN, tag=PATTERN     with * for any characters, ? for one',
  '  kind=machine|file|disk',
  '  parent=SNAPSHOT, untagged',
  'Filters with the same key mean or, and with different keys and.',
];
