/**
 * Encodes and decodes the state of a machine in a snapshot: vCPUs, interrupt controllers, timers and devices.
 *
 * The state is JSON in UTF-8, so that it can be read without livesnap. A 64-bit integer is `{"$u64": "0x…"}`. Bytes are
 * `{"$bytes": "base64"}`.
 *
 * Invariants, because anybody may have written the store:
 * - The size of the text is checked before it is parsed.
 * - Every field is checked before it is used. Unknown fields are ignored.
 */
import { LivesnapError } from '../errors.js';
import { anything, type Check, list, object, oneOf, optional, parse, type SchemaError } from '../schema.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import { SAVED_CONSOLE, type SavedConsole } from './console/saved-console.js';
import { MAX_CPUID_ENTRIES } from './kvm/cpuid.js';
import { MAX_MSRS, VCPU_STATE, type VcpuState } from './kvm/vcpu-state.js';
import { VM_STATE, type VmState } from './kvm/vm-state.js';
import { invalidState } from './saved-state.js';

export const MACHINE_STATE_VERSION = 1;

export interface SavedMachineState {
  readonly version: typeof MACHINE_STATE_VERSION;
  readonly vcpus: readonly VcpuState[];
  readonly vm: VmState;
  /** The state of Platform, which checks it in its own restore. */
  readonly devices: unknown;
  readonly console?: SavedConsole | undefined;
}

const SAVED_MACHINE_STATE: Check<SavedMachineState> = object(
  {
    version: oneOf(MACHINE_STATE_VERSION),
    vcpus: list(VCPU_STATE, 1, MAX_CPUS),
    vm: VM_STATE,
    devices: anything,
    console: optional(SAVED_CONSOLE),
  },
  { others: 'ignore' },
);

/** A Buffer has been replaced by its toJSON when it is passed as an argument, so the value is taken from its object. */
function replace(this: Record<string, unknown>, key: string): unknown {
  const value = this[key];
  return typeof value === 'bigint'
    ? { $u64: `0x${value.toString(16)}` }
    : value instanceof Uint8Array
      ? { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64') }
      : value;
}

function revive(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const { $u64, $bytes } = value as Record<string, unknown>;
  if (typeof $u64 === 'string' && /^0x[0-9a-f]{1,16}$/.test($u64)) return BigInt($u64);
  if (typeof $bytes === 'string') return new Uint8Array(Buffer.from($bytes, 'base64'));
  return value;
}

export const encodeMachineState = (state: SavedMachineState): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(state, replace));

/**
 * More than the state of the largest machine needs. The limits protect memory: JSON.parse takes up to 40 bytes for each
 * byte of text. A vCPU has an object for each CPUID entry and two for each MSR. Fields are counted by their colons.
 */
const MAX_BYTES = (1 << 20) + MAX_CPUS * (128 << 10);
const MAX_OBJECTS = (MAX_CPUS + 1) * (MAX_CPUID_ENTRIES + 2 * MAX_MSRS + 256);
const MAX_FIELDS = (MAX_CPUS + 1) * (7 * MAX_CPUID_ENTRIES + 3 * MAX_MSRS + 1024);

const [BRACE, BRACKET, COLON] = [...'{[:'].map((character) => character.charCodeAt(0));

/** Whether the text is within the limits. Looks at its bytes only. */
function isWithinLimits(bytes: Uint8Array): boolean {
  if (bytes.length > MAX_BYTES) return false;
  let objects = 0;
  let fields = 0;
  for (const byte of bytes) {
    if (byte === BRACE || byte === BRACKET) objects++;
    else if (byte === COLON) fields++;
  }
  return objects <= MAX_OBJECTS && fields <= MAX_FIELDS;
}

/** Errors: BAD_STATE, naming the field at fault; NEWER_FORMAT. */
export function decodeMachineState(bytes: Uint8Array): SavedMachineState {
  if (!isWithinLimits(bytes)) throw invalidState('it is larger than the state of any machine');
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), revive);
  } catch (error) {
    throw invalidState('it is not valid JSON', error);
  }
  const { version } = (value ?? {}) as Record<string, unknown>;
  if (typeof version === 'number' && version > MACHINE_STATE_VERSION) {
    throw new LivesnapError(
      'NEWER_FORMAT',
      `the saved state has version ${version}; this livesnap reads up to version ${MACHINE_STATE_VERSION}`,
      { hint: 'Update livesnap.' },
    );
  }
  return parse(SAVED_MACHINE_STATE, value, (wrong: SchemaError) => invalidState(wrong.message));
}
