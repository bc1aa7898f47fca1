/**
 * File names as exact bytes. Node decodes the command line as UTF-8 and replaces invalid bytes by U+FFFD, but the name
 * of a file may be any bytes.
 */
import { readFileSync } from 'node:fs';

/** The arguments as bytes. Null: /proc is not available. */
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

/** The operand, or its bytes if it is not UTF-8. `line`: the arguments of this process. */
export function exactName(operand: string, line: () => Buffer[] | null = commandLine): string | Buffer {
  if (!operand.includes('\ufffd')) return operand;
  const same = (line() ?? []).filter((argument) => argument.toString() === operand);
  const [first, ...others] = same;
  // Different arguments can decode to the same text. Then the right one is unknown.
  return first && others.every((other) => other.equals(first)) ? first : operand;
}
