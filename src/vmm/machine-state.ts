/**
 * The state of a machine as a snapshot keeps it beside the pages: vCPUs, interrupt controllers, timers, devices.
 *
 * Encoded as JSON in UTF-8, so that it can be read without this program; integers of 64 bits are `{"$u64": "0x…"}`,
 * bytes `{"$bytes": "base64"}`. Invariant: decoding checks every field and size before anything uses it; the bytes
 * come from a store that anybody may have written.
 */
import { LivesnapError } from '../errors.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import { MAX_CPUID_ENTRIES } from './kvm/cpuid.js';
import { checkVcpuState, MAX_MSRS, type VcpuState } from './kvm/vcpu-state.js';
import { checkVmState, type VmState } from './kvm/vm-state.js';

export const MACHINE_STATE_VERSION = 1;

export interface MachineState {
  readonly version: typeof MACHINE_STATE_VERSION;
  readonly vcpus: readonly VcpuState[];
  readonly vm: VmState;
  /** By device name; checked by the device that restores it. */
  readonly devices: unknown;
}

const replace = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint'
    ? { $u64: `0x${value.toString(16)}` }
    : value instanceof Uint8Array
      ? { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64') }
      : value;

function revive(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const { $u64, $bytes } = value as Record<string, unknown>;
  if (typeof $u64 === 'string' && /^0x[0-9a-f]{1,16}$/.test($u64)) return BigInt($u64);
  if (typeof $bytes === 'string') return new Uint8Array(Buffer.from($bytes, 'base64'));
  return value;
}

export const encodeMachineState = (state: MachineState): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(state, replace));

/**
 * What the state of the largest machine takes, with room to spare: JSON.parse needs up to 40 bytes of memory for a byte of
 * text. A vCPU has an object for each CPUID entry and two for each MSR; fields are counted by their colons.
 */
const MAX_BYTES = (1 << 20) + MAX_CPUS * (128 << 10);
const MAX_OBJECTS = (MAX_CPUS + 1) * (MAX_CPUID_ENTRIES + 2 * MAX_MSRS + 256);
const MAX_FIELDS = (MAX_CPUS + 1) * (7 * MAX_CPUID_ENTRIES + 3 * MAX_MSRS + 1024);

const [BRACE, BRACKET, COLON] = [...'{[:'].map((character) => character.charCodeAt(0));

/** Whether the text can be the state of a machine, judged before anything is made of it. */
function isOfPossibleSize(bytes: Uint8Array): boolean {
  if (bytes.length > MAX_BYTES) return false;
  let objects = 0;
  let fields = 0;
  for (const byte of bytes) {
    if (byte === BRACE || byte === BRACKET) objects++;
    else if (byte === COLON) fields++;
  }
  return objects <= MAX_OBJECTS && fields <= MAX_FIELDS;
}

/** @throws LivesnapError BAD_STATE, or NEWER_FORMAT for the state of a later version. */
export function decodeMachineState(bytes: Uint8Array): MachineState {
  if (!isOfPossibleSize(bytes))
    throw new LivesnapError('BAD_STATE', "the snapshot's machine state is larger than that of any machine");
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), revive);
  } catch (error) {
    throw new LivesnapError('BAD_STATE', "the snapshot's machine state is not valid JSON", { cause: error });
  }
  const { version, vcpus, vm, devices } = value ?? {};
  if (typeof version === 'number' && version > MACHINE_STATE_VERSION) {
    throw new LivesnapError(
      'NEWER_FORMAT',
      `the snapshot's machine state has version ${version}; this livesnap reads up to ${MACHINE_STATE_VERSION}`,
      { hint: 'Update livesnap.' },
    );
  }
  if (
    version !== MACHINE_STATE_VERSION ||
    !Array.isArray(vcpus) ||
    vcpus.length < 1 ||
    vcpus.length > MAX_CPUS
  ) {
    throw new LivesnapError('BAD_STATE', "the snapshot's machine state has no valid version or vCPUs");
  }
  return { version, vcpus: vcpus.map(checkVcpuState), vm: checkVmState(vm), devices };
}
