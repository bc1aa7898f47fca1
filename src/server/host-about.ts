/** Facts about the host that do not change while the server runs. */
import { availableParallelism, hostname, totalmem } from 'node:os';
import { asLivesnapError } from '../errors.js';
import { describeHost } from '../vmm/kvm/host.js';
import type { HostAbout } from './schemas.js';

export function hostAbout(
  version: string,
  storeDir: string,
  names: Pick<HostAbout, 'store' | 'stores'>,
): HostAbout {
  return {
    name: hostname(),
    version,
    kvm: kvmName(),
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    storeDir,
    ...names,
  };
}

function kvmName(): string {
  try {
    return describeHost().kind === 'pvm' ? 'KVM (PVM)' : 'KVM';
  } catch (error) {
    return asLivesnapError(error).message;
  }
}
