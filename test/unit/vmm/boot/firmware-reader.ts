/** Reads firmware tables as a kernel does, checking every checksum on the way. */
import assert from 'node:assert/strict';

export const sum = (bytes: Buffer): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;

/** All tables by signature, from the RSDP at the start of `bytes`, which lie at `gpa`. */
export function readAcpi(bytes: Buffer, gpa: number): Map<string, Buffer> {
  const rsdp = bytes.subarray(0, 36);
  assert.equal(rsdp.toString('latin1', 0, 8), 'RSD PTR ');
  assert.equal(sum(rsdp.subarray(0, 20)), 0);
  assert.equal(sum(rsdp), 0);
  assert.equal(rsdp[15], 2);
  assert.equal(rsdp.readUInt32LE(20), 36);
  const tables = new Map<string, Buffer>();
  const tableAt = (address: bigint): Buffer => {
    const at = Number(address) - gpa;
    assert(at >= 36 && at % 64 === 0, `a table at ${address}`);
    const table = bytes.subarray(at, at + bytes.readUInt32LE(at + 4));
    const signature = table.toString('latin1', 0, 4);
    if (signature !== 'FACS') assert.equal(sum(table), 0, `checksum of ${signature}`);
    tables.set(signature, table);
    return table;
  };
  const xsdt = tableAt(rsdp.readBigUInt64LE(24));
  for (let at = 36; at < xsdt.length; at += 8) tableAt(xsdt.readBigUInt64LE(at));
  const fadt = tables.get('FACP')!;
  tableAt(fadt.readBigUInt64LE(140));
  tableAt(BigInt(fadt.readUInt32LE(36)));
  return tables;
}

/** The entries of a MADT, each with its type and length. */
export function madtEntries(madt: Buffer): Buffer[] {
  const entries: Buffer[] = [];
  for (let at = 44; at < madt.length; at += madt[at + 1]!) {
    entries.push(madt.subarray(at, at + madt[at + 1]!));
  }
  return entries;
}

const MP_ENTRY_BYTES = [20, 8, 8, 8, 8];

/** The entries of an MP table. */
export function mpEntries(table: Buffer): Buffer[] {
  assert.equal(table.toString('latin1', 0, 4), 'PCMP');
  assert.equal(table.length, table.readUInt16LE(4));
  assert.equal(sum(table), 0);
  const entries: Buffer[] = [];
  for (let at = 44; at < table.length; at += MP_ENTRY_BYTES[table[at]!]!) {
    entries.push(table.subarray(at, at + MP_ENTRY_BYTES[table[at]!]!));
  }
  assert.equal(entries.length, table.readUInt16LE(34));
  return entries;
}
