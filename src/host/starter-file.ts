/**
 * The starter file of `start`: lines to type into the console, with placeholders such as `{{password}}`.
 *
 * Everything is checked before the machine starts. A line has a limit, because terminals of guests have one.
 */
import { readFileSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import { MAX_STARTER_BYTES } from '../vmm/console/saved-console.js';

export const STARTER_KEYS = ['username', 'password', 'id', 'ip'] as const;
export type StarterKey = (typeof STARTER_KEYS)[number];

/** Linux's terminals take lines of up to 4095 bytes. */
const MAX_LINE_BYTES = 4000;

const KEYS_HINT = `The placeholders are ${STARTER_KEYS.map((key) => `{{${key}}}`).join(', ')}.`;

const usage = (message: string, hint: string): LivesnapError => new LivesnapError('USAGE', message, { hint });

/** `password=secret`. Errors: USAGE. */
export function parseStarterSet(text: string): readonly [StarterKey, string] {
  const at = text.indexOf('=');
  // The value may be a password, so it is not repeated.
  const name = at < 0 ? text : text.slice(0, at);
  const key = STARTER_KEYS.find((known) => known === name);
  if (at < 0) throw usage('the value has no =', 'Example: --starter-set username=root.');
  if (key === undefined)
    throw usage(`there is no placeholder ${JSON.stringify(name)}`, `Use ${STARTER_KEYS.join(', ')}.`);
  const value = text.slice(at + 1);
  if (/[\r\n]/.test(value)) throw usage(`the value of ${key} has a line end`, 'Give a value of one line.');
  return [key, value];
}

/** The lines of a file, with the placeholders replaced. Errors: USAGE, naming the line. */
export function starterLines(
  path: string,
  bytes: Uint8Array,
  values: ReadonlyMap<string, string>,
): readonly string[] {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw usage(`starter file ${path} is not UTF-8`, 'Give a text file.');
  }
  const lines = text
    .replace(/\r?\n$/, '')
    .split(/\r?\n/)
    .map((line, i) => {
      const where = `starter file ${path}, line ${i + 1}`;
      const replaced = line.replace(/\{\{([^{}]*)\}\}/g, (placeholder, inner: string) => {
        const key = inner.trim();
        if (!(STARTER_KEYS as readonly string[]).includes(key))
          throw usage(`${where}: unknown placeholder ${placeholder}`, KEYS_HINT);
        const value = values.get(key);
        if (value === undefined)
          throw usage(`${where}: ${placeholder} has no value`, `Add --starter-set ${key}=VALUE.`);
        return value;
      });
      if (Buffer.byteLength(replaced) > MAX_LINE_BYTES)
        throw usage(`${where} is longer than ${MAX_LINE_BYTES} bytes`, 'Divide it into shorter lines.');
      return replaced;
    });
  if (Buffer.byteLength(lines.join('\n')) > MAX_STARTER_BYTES) throw tooLong(path);
  return lines;
}

const tooLong = (path: string): LivesnapError =>
  usage(
    `starter file ${path} is longer than ${MAX_STARTER_BYTES} bytes`,
    'Let it fetch and run a longer script.',
  );

/** Reads a starter file; `path` is a readable file. */
export const readStarterFile = (path: string, values: ReadonlyMap<string, string>): readonly string[] =>
  starterLines(path, readFileSync(path), values);
