/**
 * What a host offers to guests, as far as a snapshot can need it. `doctor --json` prints it, so that a snapshot can be
 * compared with a host that is not here.
 *
 * Format (version 1): plain JSON. A CPUID leaf is a line, `00000007.0 00000002 01802852 1a010104 20010000`: leaf and
 * subleaf, then EAX, EBX, ECX, EDX, in hexadecimal. MSR numbers and values are hexadecimal strings.
 *
 * Invariants:
 * - A profile from a file is untrusted: sizes, forms and ranges are checked before anything is used.
 * - Each fact is stored once. Vendor, model, XCR0 and MAXPHYADDR are in the CPUID leaves (cpu-features.ts).
 */
import { LivesnapError } from '../../errors.js';
import { flag, integer, list, nullable, object, oneOf, parse, satisfying, text } from '../../schema.js';
import { type CpuidEntry, MAX_CPUID_ENTRIES } from '../kvm/cpuid.js';
import type { KvmKind } from '../kvm/host.js';
import { MAX_MSRS, type MsrValue } from '../kvm/vcpu-state.js';

export const HOST_PROFILE_VERSION = 1;

export interface HostProfile {
  readonly kvm: KvmKind;
  /** The processor's name, as in /proc/cpuinfo. */
  readonly processor: string | null;
  /** Revision of the microcode, as in /proc/cpuinfo. */
  readonly microcode: string | null;
  /** Release of the kernel. */
  readonly kernel: string;
  /** Rate of the TSC that a new guest gets. */
  readonly tscKhz: number;
  /** Whether KVM can run a guest at another TSC rate. */
  readonly tscControl: boolean;
  readonly maxCpus: number;
  /** All memory of the host. */
  readonly memoryBytes: number;
  /** Size of a vCPU's XSAVE area. */
  readonly xsaveBytes: number;
  /** What a guest's CPUID may have. On a PVM host also what a guest sees whatever its CPUID is. */
  readonly cpuid: readonly CpuidEntry[];
  /** The MSRs that KVM can save and set. */
  readonly msrs: readonly number[];
  /** MSRs whose bits are features, with the bits that this host has. */
  readonly featureMsrs: readonly MsrValue[];
}

/** Lengths of names in a profile. Real ones are shorter. */
const MAX_NAME_LENGTH = 200;
const MAX_FEATURE_MSRS = 64;
const MAX_KHZ = 100_000_000;

const CPUID_LINE = /^[0-9a-f]{8}\.[0-9a-f]{1,8}( [0-9a-f]{8}){4}$/;
const U32 = /^0x[0-9a-f]{1,8}$/;
const U64 = /^0x[0-9a-f]{1,16}$/;

/** No controls, formats or line ends: names are shown in sentences, on a terminal and in logs. */
const PRINTABLE = /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]*$/u;

/** The check of a name of a processor, kernel or microcode. */
export const hostName = satisfying(
  text(PRINTABLE, 'printable text'),
  ({ length }) => length <= MAX_NAME_LENGTH,
  `is longer than ${MAX_NAME_LENGTH} characters`,
);

const PROFILE = object(
  {
    kvm: oneOf('vmx', 'svm', 'pvm', 'unknown'),
    processor: nullable(hostName),
    microcode: nullable(hostName),
    kernel: hostName,
    tscKhz: integer(1, MAX_KHZ),
    tscControl: flag,
    maxCpus: integer(1, 1 << 20),
    memoryBytes: integer(1),
    xsaveBytes: integer(576, 1 << 20),
    cpuid: list(text(CPUID_LINE, 'a CPUID leaf'), 1, MAX_CPUID_ENTRIES),
    msrs: list(text(U32, 'an MSR number'), 0, MAX_MSRS),
    featureMsrs: list(
      object({ index: text(U32, 'an MSR number'), value: text(U64, 'an MSR value') }, { others: 'ignore' }),
      0,
      MAX_FEATURE_MSRS,
    ),
  },
  { others: 'ignore' },
);

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
const hex8 = (value: number): string => value.toString(16).padStart(8, '0');

/** The profile as JSON data. */
export function encodeProfile(profile: HostProfile): Record<string, unknown> {
  return {
    version: HOST_PROFILE_VERSION,
    ...profile,
    cpuid: profile.cpuid.map(
      (e) =>
        `${hex8(e.function)}.${e.index.toString(16)} ${[e.eax, e.ebx, e.ecx, e.edx].map(hex8).join(' ')}`,
    ),
    msrs: profile.msrs.map(hex),
    featureMsrs: profile.featureMsrs.map(({ index, value }) => ({ index: hex(index), value: hex(value) })),
  };
}

function parseLine(line: string): CpuidEntry {
  const [at = '', ...words] = line.split(' ');
  const [leaf = '', index = ''] = at.split('.');
  const [eax = 0, ebx = 0, ecx = 0, edx = 0] = words.map((word) => Number.parseInt(word, 16));
  return {
    function: Number.parseInt(leaf, 16),
    index: Number.parseInt(index, 16),
    flags: 0,
    eax,
    ebx,
    ecx,
    edx,
  };
}

/**
 * Checks and decodes what {@link encodeProfile} made. `source` names it in errors.
 * @throws LivesnapError USAGE, naming the field at fault; NEWER_FORMAT
 */
export function decodeProfile(value: unknown, source: string): HostProfile {
  const versioned = parse(object({ version: integer(1) }, { others: 'ignore' }), value, invalid(source));
  if (versioned.version > HOST_PROFILE_VERSION)
    throw new LivesnapError(
      'NEWER_FORMAT',
      `the host in ${source} has version ${versioned.version}; this livesnap reads up to version ${HOST_PROFILE_VERSION}`,
      { hint: 'Update livesnap.' },
    );
  const checked = parse(PROFILE, value, invalid(source));
  const { kvm, processor, microcode, kernel, tscKhz, tscControl, maxCpus, memoryBytes, xsaveBytes } = checked;
  return {
    kvm,
    processor,
    microcode,
    kernel,
    tscKhz,
    tscControl,
    maxCpus,
    memoryBytes,
    xsaveBytes,
    cpuid: checked.cpuid.map(parseLine),
    msrs: checked.msrs.map(Number),
    featureMsrs: checked.featureMsrs.map((msr) => ({ index: Number(msr.index), value: BigInt(msr.value) })),
  };
}

const invalid =
  (source: string) =>
  ({ message }: Error): LivesnapError =>
    new LivesnapError('USAGE', `${source} does not describe a host: ${message}`, {
      hint: 'Make the file on that host: livesnap doctor --json >FILE',
    });
