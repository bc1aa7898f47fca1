/**
 * Checks of plain data that comes from outside: a snapshot's description, a device's state, a request's body.
 *
 * A check takes a value and gives it back with its type, or throws a {@link SchemaError} that names the field. Checks are
 * built from checks: `object({ cpus: integer(1, 16), kernel: text(), initrd: nullable(text()) })`.
 *
 * Invariants:
 * - A check never changes or converts a value.
 * - It reads own properties only.
 * - Its error names the field by its path, and repeats at most a few characters of the value.
 */

/** Gives the value back, typed. `path` is where the value is, for the error: `regs.rip`, `regions[2].name`, or empty. */
export type Check<T> = (value: unknown, path: string) => T;

/** The type of what a check gives back. */
export type Checked<C> = C extends Check<infer T> ? T : never;

/** Data is not what it must be. Callers turn it into an error that names the file, the device or the request. */
export class SchemaError extends Error {
  constructor(
    /** The field at fault; empty for the whole value. */
    readonly path: string,
    /** Completes the sentence "FIELD …": `is missing`, `is not an integer from 1 to 16`. */
    readonly problem: string,
  ) {
    super(`${path === '' ? 'the value' : path} ${problem}`);
  }
}

/** Runs a check on a whole value; `asError` makes the caller's own error of what is wrong. */
export function parse<T>(check: Check<T>, value: unknown, asError: (wrong: SchemaError) => Error): T {
  try {
    return check(value, '');
  } catch (error) {
    throw error instanceof SchemaError ? asError(error) : error;
  }
}

/** Whether a value passes. */
export function passes(check: Check<unknown>, value: unknown): boolean {
  try {
    check(value, '');
    return true;
  } catch (error) {
    if (error instanceof SchemaError) return false;
    throw error;
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const check =
  <T>(isRight: (value: unknown) => boolean, problem: string): Check<T> =>
  (value, path) => {
    if (value === undefined) throw new SchemaError(path, 'is missing');
    if (!isRight(value)) throw new SchemaError(path, problem);
    return value as T;
  };

/** Any value, also none. */
export const anything: Check<unknown> = (value) => value;

export const flag: Check<boolean> = check((value) => typeof value === 'boolean', 'is not true or false');

/** A safe integer from `least` to `most`. */
export const integer = (least = 0, most = Number.MAX_SAFE_INTEGER): Check<number> =>
  check(
    (value) => Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most,
    `is not an integer from ${least} to ${most}`,
  );

export const byte = integer(0, 0xff);

/** A number that is finite and not negative. */
export const amount: Check<number> = check(
  (value) => typeof value === 'number' && Number.isFinite(value) && value >= 0,
  'is not a number of 0 or more',
);

/** A `bigint` from 0 to 2^bits - 1. */
export const unsigned = (bits: number): Check<bigint> =>
  check(
    (value) => typeof value === 'bigint' && value >= 0n && value < 1n << BigInt(bits),
    `is not an unsigned integer of ${bits} bits`,
  );

/** A string; `what` names its form where there is a `pattern`: `text(SNAPSHOT_ID, 'a snapshot ID')`. */
export const text = (pattern?: RegExp, what = 'valid'): Check<string> =>
  check(
    (value) => typeof value === 'string' && (pattern?.test(value) ?? true),
    pattern ? `is not ${what}` : 'is not a string',
  );

/** One of a few strings or numbers. */
export const oneOf = <const V extends string | number>(...values: V[]): Check<V> =>
  check(
    (value) => (values as unknown[]).includes(value),
    `is not ${values.join(', ').replace(/, ([^,]*)$/, ' or $1')}`,
  );

/** A `Uint8Array` of `least` to `most` bytes. */
export const bytes = (least: number, most = least): Check<Uint8Array> =>
  check(
    (value) => value instanceof Uint8Array && value.length >= least && value.length <= most,
    least === most ? `is not ${least} bytes` : `is not ${least} to ${most} bytes`,
  );

/** A string that is canonical base64 of `least` to `most` bytes. */
export const base64 = (least: number, most = least): Check<string> =>
  check(
    (value) => {
      if (typeof value !== 'string' || value.length > Math.ceil(most / 3) * 4) return false;
      const decoded = Buffer.from(value, 'base64');
      return decoded.length >= least && decoded.length <= most && decoded.toString('base64') === value;
    },
    `is not ${least === most ? least : `${least} to ${most}`} bytes in base64`,
  );

/** A value that meets a condition which only code can tell. `problem` completes the sentence "FIELD …". */
export const satisfying =
  <T>(inner: Check<T>, isRight: (value: T) => boolean, problem: string): Check<T> =>
  (value, path) => {
    const checked = inner(value, path);
    if (!isRight(checked)) throw new SchemaError(path, problem);
    return checked;
  };

export const nullable =
  <T>(inner: Check<T>): Check<T | null> =>
  (value, path) =>
    value === null ? null : inner(value, path);

/** A field that may be left out; it is then undefined. */
export const optional =
  <T>(inner: Check<T>): Check<T | undefined> =>
  (value, path) =>
    value === undefined ? undefined : inner(value, path);

/** An array of `least` to `most` items; the length is checked before any item. */
export const list =
  <T>(inner: Check<T>, least: number, most: number): Check<readonly T[]> =>
  (value, path) => {
    if (value === undefined) throw new SchemaError(path, 'is missing');
    if (!Array.isArray(value)) throw new SchemaError(path, 'is not a list');
    if (value.length < least || value.length > most)
      throw new SchemaError(
        path,
        `has ${value.length} items, not ${least === most ? least : `${least} to ${most}`}`,
      );
    value.forEach((item, i) => {
      inner(item, `${path}[${i}]`);
    });
    return value as T[];
  };

type Fields = Readonly<Record<string, Check<unknown>>>;
type Shape<F extends Fields> = { readonly [K in keyof F]: Checked<F[K]> };

/** As much of a field's unknown name as an error repeats. */
const SHOWN_NAME_LENGTH = 40;

/**
 * A plain object with these fields. `others`: what happens to fields that are not listed; a format that newer versions
 * extend ignores them, anything else refuses them.
 */
export const object =
  <F extends Fields>(
    fields: F,
    { others = 'refuse' }: { others?: 'refuse' | 'ignore' } = {},
  ): Check<Shape<F>> =>
  (value, path) => {
    if (value === undefined) throw new SchemaError(path, 'is missing');
    if (!isRecord(value)) throw new SchemaError(path, 'is not an object');
    const prefix = path === '' ? '' : `${path}.`;
    for (const [name, inner] of Object.entries(fields))
      inner(Object.hasOwn(value, name) ? value[name] : undefined, prefix + name);
    if (others === 'refuse')
      for (const name of Object.keys(value))
        if (!Object.hasOwn(fields, name))
          throw new SchemaError(
            prefix + JSON.stringify(name.slice(0, SHOWN_NAME_LENGTH)),
            'is not a known field',
          );
    return value as Shape<F>;
  };
