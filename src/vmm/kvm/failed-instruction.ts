/**
 * Reads the instruction that KVM's emulator could not run from the data of a KVM_EXIT_INTERNAL_ERROR (Linux,
 * include/uapi/linux/kvm.h, `emulation_failure` of struct kvm_run).
 */
import { INTERNAL_ERROR_EMULATION } from './abi.js';

/** KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES */
const FLAG_INSTRUCTION_BYTES = 1n << 0n;
/** Words of 8 bytes: the flags, then one byte of size and 15 of instruction. Older kernels fill fewer. */
const WORDS = 3;
const SIZE_OFFSET = 8;
const BYTES_OFFSET = 9;
const MAX_BYTES = 15;

/**
 * The bytes of the instruction. Null when the emulator did not fail or KVM gives no bytes: without the flag, other
 * debugging data is in their place.
 * @param words the number of 8-byte words of `data` that KVM filled (`ndata`)
 */
export function failedInstruction(suberror: number, words: number, data: Uint8Array): Uint8Array | null {
  if (suberror !== INTERNAL_ERROR_EMULATION || words < WORDS) return null;
  const flags = new DataView(data.buffer, data.byteOffset).getBigUint64(0, true);
  const size = Math.min(data[SIZE_OFFSET]!, MAX_BYTES);
  if ((flags & FLAG_INSTRUCTION_BYTES) === 0n || size === 0) return null;
  return Uint8Array.from(data.subarray(BYTES_OFFSET, BYTES_OFFSET + size));
}
