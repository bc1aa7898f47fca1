/**
 * Names of files as they were given. Node decodes the command line as UTF-8 and puts U+FFFD in place of what is none,
 * while the name of a file may be any bytes.
 */
import { readFileSync } from 'node:fs';

/** The arguments as the kernel has them; null where it does not say. */
function commandLine(): Buffer[] | null {
  let bytes: Buffer;
  try {
    bytes = readFileSync('/proc/self/cmdline');
  } catch {
    return null;
  }
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const found = bytes.indexOf(0, at);
    const end = found < 0 ? bytes.length : found;
    parts.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return parts;
}

/** The operand, or its bytes where it is not UTF-8. `line`: the arguments of this process. */
export function exactName(operand: string, line: () => Buffer[] | null = commandLine): string | Buffer {
  if (!operand.includes('\ufffd')) return operand;
  const same = (line() ?? []).filter((argument) => argument.toString() === operand);
  const [first, ...others] = same;
  // Two arguments that look alike and are not: which of them is meant is not known.
  return first && others.every((other) => other.equals(first)) ? first : operand;
}
