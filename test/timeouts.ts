/**
 * Time limits of tests, where the host is slower than usual. LIVESNAP_TIMEOUT_FACTOR multiplies them: the tier `svm`
 * runs in an emulator. A test never depends on a limit: it only ends one that hangs.
 */
const factor = Number(process.env.LIVESNAP_TIMEOUT_FACTOR || 1);
if (!(factor >= 1)) throw new Error('LIVESNAP_TIMEOUT_FACTOR is not a number of at least 1');

/** A limit in milliseconds, or in any other unit of time. */
export const limit = (duration: number): number => Math.ceil(duration * factor);
