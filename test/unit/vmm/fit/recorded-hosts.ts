/** The hosts of test/fixtures/hosts, and snapshots as each of them would save them. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../../../src/native/project-root.js';
import { xcr0Mask } from '../../../../src/vmm/fit/cpu-features.js';
import { applyTemplate, applyTemplateToMsrs } from '../../../../src/vmm/fit/cpu-templates.js';
import { decodeProfile, type HostProfile } from '../../../../src/vmm/fit/host-profile.js';
import type { SnapshotNeeds, VcpuNeeds } from '../../../../src/vmm/fit/snapshot-needs.js';
import { guestCpuid } from '../../../../src/vmm/kvm/cpuid.js';
import type { CpuTemplate } from '../../../../src/vmm/machine-types.js';

const DIRECTORY = join(projectRoot, 'test/fixtures/hosts');

export const HOST_NAMES: readonly string[] = readdirSync(DIRECTORY)
  .map((file) => file.replace(/\.json$/, ''))
  .sort();

export function recordedHost(name: string): HostProfile {
  const path = join(DIRECTORY, `${name}.json`);
  return decodeProfile(JSON.parse(readFileSync(path, 'utf8')).host, path);
}

/** struct kvm_xcrs with XCR0. */
export function xcrsOf(value: bigint): Uint8Array {
  const xcrs = new Uint8Array(392);
  const view = new DataView(xcrs.buffer);
  view.setUint32(0, 1, true);
  view.setBigUint64(16, value, true);
  return xcrs;
}

/** MSRs of features that no template has: the guest never sets them. Async page faults of KVM, migration, TSX, XFD, PMU. */
const UNUSED_WITH_TEMPLATE = [
  0x4b564d02, 0x4b564d06, 0x4b564d07, 0x4b564d08, 0x122, 0x1c4, 0x1c5, 0xe1, 0x186, 0x309, 0x38f, 0xc1, 0xda0,
];
const valueWithTemplate = (index: number): bigint => (UNUSED_WITH_TEMPLATE.includes(index) ? 0n : 1n);

/** The needs of a machine that booted and was saved on a host, with every state of its processor enabled. */
export function savedOn(host: HostProfile, cpus = 2, template?: CpuTemplate): SnapshotNeeds {
  const { kvm, kernel, microcode } = host;
  const vcpus = Array.from({ length: cpus }, (_, apicId): VcpuNeeds => {
    const whole = guestCpuid(host.cpuid, apicId, cpus, { kind: kvm, tscDeadlineTimer: true });
    const cpuid = template === undefined ? whole : applyTemplate(template, whole, 2 ** 30);
    const value = template === undefined ? (): bigint => 1n : valueWithTemplate;
    const msrs = host.msrs.map(
      (index) => host.featureMsrs.find((msr) => msr.index === index) ?? { index, value: value(index) },
    );
    return {
      cpuid,
      xcrs: xcrsOf(xcr0Mask(cpuid) || 1n),
      xsave: new Uint8Array(host.xsaveBytes),
      tscKhz: host.tscKhz,
      msrs: template === undefined ? msrs : applyTemplateToMsrs(msrs),
    };
  });
  return {
    vcpus,
    cpus,
    memoryBytes: 2 ** 30,
    hasTemplate: template !== undefined,
    savedOn: { kvm, kernel, microcode },
  };
}
