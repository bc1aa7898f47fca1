/**
 * How a restore sets the guest's clocks.
 *
 * With `host` the time since the save counts: it is added to kvmclock and, where KVM can write it, equally to every TSC.
 * So the guest's wall clock is right at once, and timers that elapsed meanwhile fire, once each. With `saved` the guest
 * continues as if no time had passed.
 *
 * Invariants:
 * - Nothing is ever subtracted, so the guest's monotonic clock never goes back.
 * - One reading of the host's clock counts for kvmclock and for every vCPU.
 * - The saved time comes from a snapshot, so it may be any: an elapsed time that is not plausible counts as 0.
 */

export type RestoreClock = 'host' | 'saved';

export interface ElapsedTime {
  /** Added to every clock of the guest. */
  readonly addedNs: bigint;
  /** The time since the save that was not added: the guest's clocks stay that far behind. */
  readonly heldBackNs: bigint;
  /** The host's wall clock when this was determined, in nanoseconds since 1970. */
  readonly nowNs: bigint;
}

const NS_PER_MS = 1_000_000n;
/** Longer ago means that a clock was wrong, at the save or now. */
const MAX_ELAPSED_YEARS = 10;
const MAX_ELAPSED_NS = BigInt(MAX_ELAPSED_YEARS * 366 * 24 * 3600) * 1_000_000_000n;
const MAX_U64 = (1n << 64n) - 1n;

/** The host's wall clock, in nanoseconds since 1970, in steps of a millisecond. */
export const wallClockNs = (): bigint => BigInt(Date.now()) * NS_PER_MS;

/** `savedNs`: the host's wall clock at the save; undefined in a snapshot of an earlier version. */
export function elapsedTime(clock: RestoreClock, savedNs: bigint | undefined, nowNs: bigint): ElapsedTime {
  const elapsedNs = savedNs === undefined ? 0n : nowNs - savedNs;
  const plausibleNs = elapsedNs < 0n || elapsedNs > MAX_ELAPSED_NS ? 0n : elapsedNs;
  return clock === 'host'
    ? { addedNs: plausibleNs, heldBackNs: 0n, nowNs }
    : { addedNs: 0n, heldBackNs: plausibleNs, nowNs };
}

/** What the user should know about the clock of a restored guest, one sentence each. */
export function clockNotices(clock: RestoreClock, savedNs: bigint | undefined, nowNs: bigint): string[] {
  if (clock === 'saved' || savedNs === undefined) return [];
  const elapsedNs = nowNs - savedNs;
  if (elapsedNs >= 0n && elapsedNs <= MAX_ELAPSED_NS) return [];
  const difference =
    elapsedNs < 0n
      ? `${(-elapsedNs + NS_PER_MS * 1000n - 1n) / (NS_PER_MS * 1000n)} s behind`
      : `more than ${MAX_ELAPSED_YEARS} years ahead of`;
  return [
    `the host's clock is ${difference} the time of the save, so the guest's clocks continue from where they stood. Set the guest's clock if it is wrong.`,
  ];
}

/** How far a TSC of `khz` counts in that time. */
export const tscCycles = (ns: bigint, khz: number): bigint => (ns * BigInt(khz)) / NS_PER_MS;

/**
 * The TSC deadline of a restored timer. A deadline that has passed is now: it fires at once.
 * @param saved the deadline and the TSC of the save
 * @param nowTsc the TSC of the restored vCPU, as it reads now
 * @param addedCycles how far time has advanced, for the guest
 */
export function restoredDeadline(
  saved: { readonly deadline: bigint; readonly tsc: bigint },
  nowTsc: bigint,
  addedCycles: bigint,
): bigint {
  const left = saved.deadline - saved.tsc - addedCycles;
  const deadline = left > 0n ? nowTsc + left : nowTsc;
  return deadline > MAX_U64 ? MAX_U64 : deadline;
}
