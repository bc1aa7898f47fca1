/** Whether a snapshot fits a host: for a restore, which refuses before a VM exists, and for the verb `fit`. */
import { LivesnapError } from '../../errors.js';
import type { SnapshotMetadata } from '../../page-stream.js';
import { decodeMachineState } from '../machine-state.js';
import { readSavedMachine } from '../saved-machine.js';
import { compareFit, type FitFinding } from './compare.js';
import type { HostProfile } from './host-profile.js';
import { needsOf, readSavedHost, type SnapshotNeeds } from './snapshot-needs.js';

/**
 * All findings about a snapshot of a machine and a host.
 * @throws LivesnapError BAD_STATE, NEWER_FORMAT
 */
export function fitOf(metadata: SnapshotMetadata, host: HostProfile): FitFinding[] {
  const { vcpus } = decodeMachineState(metadata.state);
  const { config } = readSavedMachine(metadata.machine);
  return compareFit(needsOf(vcpus, config, readSavedHost(metadata.host)), host);
}

/**
 * Refuses a snapshot that does not fit this host. Gives the warnings, one sentence each.
 * @throws LivesnapError HOST_LACKS, naming everything that does not fit
 */
export function requireFit(id: string, needs: SnapshotNeeds, host: HostProfile): string[] {
  const findings = compareFit(needs, host);
  const refused = findings.filter(({ level }) => level === 'refuse');
  if (refused.length > 0) {
    const problems = refused.map(({ thing, need, have }) => `${thing}: it needs ${need} (host: ${have})`);
    throw new LivesnapError(
      'HOST_LACKS',
      `snapshot ${id.slice(0, SHOWN_ID_LENGTH)} does not fit this host. ${problems.join('; ')}`,
      { hint: [...new Set(refused.map(({ help }) => help))].join(' ') },
    );
  }
  return findings.map(
    ({ thing, need, have, help }) =>
      `the ${thing} differs from the host that saved the snapshot: ${need} there, ${have} here. ${help}`,
  );
}

const SHOWN_ID_LENGTH = 12;
