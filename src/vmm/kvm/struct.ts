/**
 * C structures of KVM's ABI as records of named fields. A layout names each field with its size, in order and without
 * implicit padding. Fields of 8 bytes (registers and addresses) are `bigint`, smaller ones `number`.
 */
import { type Check, integer, object, unsigned } from '../../schema.js';

type FieldSize = 1 | 2 | 4 | 8;
export type Fields = Readonly<Record<string, FieldSize>>;
export type Struct<F extends Fields> = { [K in keyof F]: F[K] extends 8 ? bigint : number };

/** Size in bytes of a structure of these fields. */
export const sizeOf = (fields: Fields): number => Object.values(fields).reduce((sum, size) => sum + size, 0);

export function readStruct<F extends Fields>(fields: F, bytes: Uint8Array, offset = 0): Struct<F> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out: Record<string, number | bigint> = {};
  let at = offset;
  for (const [name, size] of Object.entries(fields)) {
    if (size === 8) out[name] = view.getBigUint64(at, true);
    else if (size === 4) out[name] = view.getUint32(at, true);
    else out[name] = size === 2 ? view.getUint16(at, true) : view.getUint8(at);
    at += size;
  }
  return out as Struct<F>;
}

export function writeStruct<F extends Fields>(
  fields: F,
  value: Struct<F>,
  bytes: Uint8Array,
  offset = 0,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = offset;
  for (const [name, size] of Object.entries(fields)) {
    const field = value[name] as number | bigint;
    if (size === 8) view.setBigUint64(at, field as bigint, true);
    else if (size === 4) view.setUint32(at, field as number, true);
    else if (size === 2) view.setUint16(at, field as number, true);
    else view.setUint8(at, field as number);
    at += size;
  }
}

/** The check of a structure in a saved state: every field exists and is in range. */
export const structCheck = <F extends Fields>(fields: F): Check<Struct<F>> =>
  object(
    Object.fromEntries(
      Object.entries(fields).map(([name, size]) => [
        name,
        size === 8 ? unsigned(64) : integer(0, 2 ** (8 * size) - 1),
      ]),
    ),
    { others: 'ignore' },
  ) as Check<unknown> as Check<Struct<F>>;
