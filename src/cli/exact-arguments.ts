/**
 * File names as exact bytes. Node decodes the command line as UTF-8 and replaces invalid bytes by U+FFFD, but the name
 * of a file may be any bytes.
 */
import { readFileSync } from 'node:fs';
import { LivesnapError } from '../errors.js';

/** The arguments as bytes. Null: /proc is not available. */
function commandLine(): Buffer[] | null {
  let bytes: Buffer;
  try {
    bytes = readFileSync('/proc/self/cmdline');
  } catch {
    return null;
  }
  return splitAtNuls(bytes);
}

function splitAtNuls(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const found = bytes.indexOf(0, at);
    const end = found < 0 ? bytes.length : found;
    parts.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return parts;
}

/** The values in the environment as bytes. */
function environment(): Buffer[] {
  try {
    return splitAtNuls(readFileSync('/proc/self/environ'));
  } catch {
    return [];
  }
}

/**
 * The name of a directory. Node's text of a name that is not UTF-8 names another directory, so such a name is refused.
 * Errors: USAGE.
 */
export function requireUtf8(
  name: string,
  given: () => Buffer[] = () => [...(commandLine() ?? []), ...environment()],
): string {
  if (!name.includes('\ufffd')) return name;
  // `DIR`, `--store=DIR`, `LIVESNAP_STORE=DIR`
  const values = given().flatMap((bytes) => [bytes, bytes.subarray(bytes.indexOf('=') + 1)]);
  if (!values.some((bytes) => bytes.toString() === name && !bytes.equals(Buffer.from(name)))) return name;
  throw new LivesnapError('USAGE', `the name of the directory ${name} is not valid UTF-8`, {
    hint: 'Rename it, or use a symbolic link with another name.',
  });
}

/** The operand, or its bytes if it is not UTF-8. `line`: the arguments of this process. */
export function exactName(operand: string, line: () => Buffer[] | null = commandLine): string | Buffer {
  if (!operand.includes('\ufffd')) return operand;
  const same = (line() ?? []).filter((argument) => argument.toString() === operand);
  const [first, ...others] = same;
  // Different arguments can decode to the same text. Then the right one is unknown.
  return first && others.every((other) => other.equals(first)) ? first : operand;
}
