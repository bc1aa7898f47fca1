/**
 * Restores the time-stamp counters of a machine's vCPUs, so that they agree with each other as they did before.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - The vCPUs are parked, and each has its TSC rate.
 * - The counters are written one directly after another. KVM sets two that differ by less than a second to one offset,
 *   so that they stay in step (Linux, arch/x86/kvm/x86.c, kvm_synchronize_tsc). Only then is kvmclock stable.
 * - The first counter is written twice. Before Linux 6.8, KVM also compares the first write with the counter of the new
 *   vCPU, which begins at 0. A guest that was saved within its first second would go back to the age of the new VM.
 */

/** How the counters of a machine are read and written. */
export interface TscAccess {
  read(vcpu: number): bigint;
  write(vcpu: number, ticks: bigint): void;
}

/** Further from any counter than KVM's window of one second, and further than any counter counts. */
const FAR_TICKS = 1n << 62n;
/** More than a counter counts between a write and the next read. */
const READ_BACK_TICKS = 1n << 48n;

const later = (ticks: bigint, by: bigint): bigint => BigInt.asUintN(64, ticks + by);

/**
 * Writes the saved counters, by vCPU. A PVM host ignores the writes, because its guests read the host's own counter.
 * @returns by how many ticks each counter is ahead of its saved value: 0 where KVM has set it
 */
export function restoreTscs(tscs: TscAccess, saved: readonly bigint[]): bigint[] {
  const [first] = saved;
  if (first === undefined) return [];
  const far = later(first, FAR_TICKS);
  tscs.write(0, far);
  const isSet = later(tscs.read(0), -far) < READ_BACK_TICKS;
  saved.forEach((ticks, vcpu) => {
    tscs.write(vcpu, ticks);
  });
  return saved.map((ticks, vcpu) => (isSet ? 0n : later(tscs.read(vcpu), -ticks)));
}
