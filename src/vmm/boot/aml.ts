/**
 * Encodes the AML terms that the machine's DSDT needs. ACPI 6.5, sections 6.4 (resource descriptors) and 20.2 (AML
 * grammar). Every function returns the encoding of one term.
 */

const Op = {
  zero: 0x00,
  one: 0x01,
  name: 0x08,
  bytePrefix: 0x0a,
  wordPrefix: 0x0b,
  dwordPrefix: 0x0c,
  stringPrefix: 0x0d,
  scope: 0x10,
  buffer: 0x11,
  package: 0x12,
  method: 0x14,
  arg0: 0x68,
  notify: 0x86,
  equal: 0x93,
  if: 0xa0,
  extPrefix: 0x5b,
  device: 0x82,
} as const;

/** In the flags of a method, beside the number of its arguments. */
const SERIALIZED = 1 << 3;

/** A name of up to four characters, padded with underscores; a leading backslash makes it absolute. */
export function nameString(name: string): Buffer {
  const absolute = name.startsWith('\\');
  const segment = absolute ? name.slice(1) : name;
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) throw new RangeError(`${name} is not an AML name`);
  return Buffer.from((absolute ? '\\' : '') + segment.padEnd(4, '_'), 'latin1');
}

/** An integer of at most 32 bits in its shortest form. */
export function integer(value: number): Buffer {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
    throw new RangeError(`${value} is not 32 bits`);
  if (value === 0) return Buffer.from([Op.zero]);
  if (value === 1) return Buffer.from([Op.one]);
  if (value <= 0xff) return Buffer.from([Op.bytePrefix, value]);
  const word = value <= 0xffff;
  const encoded = Buffer.alloc(word ? 3 : 5);
  encoded.writeUInt8(word ? Op.wordPrefix : Op.dwordPrefix, 0);
  encoded.writeUIntLE(value, 1, word ? 2 : 4);
  return encoded;
}

/** A string of printable ASCII characters. */
export function string(text: string): Buffer {
  if (!/^[ -~]*$/.test(text)) throw new RangeError(`${text} is not printable ASCII`);
  return Buffer.concat([Buffer.from([Op.stringPrefix]), Buffer.from(`${text}\0`, 'latin1')]);
}

/** `Name (NAME, value)` */
export const name = (path: string, value: Buffer): Buffer =>
  Buffer.concat([Buffer.from([Op.name]), nameString(path), value]);

/** `Package () {elements}` */
export const packageOf = (...elements: Buffer[]): Buffer =>
  Buffer.concat([
    Buffer.from([Op.package]),
    withPkgLength(Buffer.concat([Buffer.from([elements.length]), ...elements])),
  ]);

/** `Scope (NAME) {terms}` */
export const scope = (path: string, ...terms: Buffer[]): Buffer =>
  Buffer.concat([Buffer.from([Op.scope]), withPkgLength(Buffer.concat([nameString(path), ...terms]))]);

/** `Device (NAME) {terms}` */
export const device = (path: string, ...terms: Buffer[]): Buffer =>
  Buffer.concat([
    Buffer.from([Op.extPrefix, Op.device]),
    withPkgLength(Buffer.concat([nameString(path), ...terms])),
  ]);

/** `Buffer () {bytes}` */
export const buffer = (bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from([Op.buffer]), withPkgLength(Buffer.concat([integer(bytes.length), bytes]))]);

/** `Method (NAME, count, Serialized) {terms}` */
export const method = (path: string, argumentCount: number, ...terms: Buffer[]): Buffer =>
  Buffer.concat([
    Buffer.from([Op.method]),
    withPkgLength(Buffer.concat([nameString(path), Buffer.from([SERIALIZED | argumentCount]), ...terms])),
  ]);

/** `ArgN`, of a method */
export const argument = (index: number): Buffer => Buffer.from([Op.arg0 + index]);

/** `LEqual (a, b)` */
export const equal = (a: Buffer, b: Buffer): Buffer => Buffer.concat([Buffer.from([Op.equal]), a, b]);

/** `If (condition) {terms}` */
export const ifThen = (condition: Buffer, ...terms: Buffer[]): Buffer =>
  Buffer.concat([Buffer.from([Op.if]), withPkgLength(Buffer.concat([condition, ...terms]))]);

/** `Notify (NAME, value)` */
export const notify = (path: string, value: number): Buffer =>
  Buffer.concat([Buffer.from([Op.notify]), nameString(path), integer(value)]);

/** `EisaId ("PNP0501")`: three letters of 5 bits and four hexadecimal digits, big-endian. */
export function eisaId(id: string): Buffer {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`${id} is not an EISA id`);
  const letters = [0, 1, 2].reduce((bits, i) => (bits << 5) | (id.charCodeAt(i) - 0x40), 0);
  const encoded = Buffer.alloc(5);
  encoded.writeUInt8(Op.dwordPrefix, 0);
  encoded.writeUInt16BE(letters, 1);
  encoded.writeUInt16BE(Number.parseInt(id.slice(3), 16), 3);
  return encoded;
}

/** `ResourceTemplate () {descriptors}`. The checksum 0 in its end tag means "not used". */
export const resourceTemplate = (...descriptors: Buffer[]): Buffer =>
  buffer(Buffer.concat([...descriptors, Buffer.from([0x79, 0x00])]));

/** `IO (Decode16, port, port, 1, length)` */
export function ioPorts(port: number, length: number): Buffer {
  const descriptor = Buffer.from([0x47, 0x01, 0, 0, 0, 0, 0x01, length]);
  descriptor.writeUInt16LE(port, 2);
  descriptor.writeUInt16LE(port, 4);
  return descriptor;
}

/** `IRQNoFlags () {irq}`: edge-triggered, active high, not shared. */
export function isaIrq(irq: number): Buffer {
  const descriptor = Buffer.from([0x22, 0, 0]);
  descriptor.writeUInt16LE(1 << irq, 1);
  return descriptor;
}

/** `Memory32Fixed (ReadWrite, base, length)` */
export function memory32Fixed(base: number, length: number): Buffer {
  const descriptor = Buffer.from([0x86, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  descriptor.writeUInt32LE(base, 4);
  descriptor.writeUInt32LE(length, 8);
  return descriptor;
}

/** `Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {gsi}` */
export function extendedInterrupt(gsi: number): Buffer {
  const descriptor = Buffer.from([0x89, 6, 0, 0b0011, 1, 0, 0, 0, 0]);
  descriptor.writeUInt32LE(gsi, 5);
  return descriptor;
}

/** PkgLength includes itself: 6 bits in one byte, or 4 bits in the first and 8 in each of up to three more. */
function withPkgLength(body: Buffer): Buffer {
  if (body.length + 1 <= 0x3f) return Buffer.concat([Buffer.from([body.length + 1]), body]);
  for (let extra = 1; extra <= 3; extra++) {
    const total = body.length + 1 + extra;
    if (total < 1 << (4 + 8 * extra)) {
      const length = Buffer.alloc(1 + extra);
      length.writeUInt8((extra << 6) | (total & 0xf), 0);
      length.writeUIntLE(total >>> 4, 1, extra);
      return Buffer.concat([length, body]);
    }
  }
  throw new RangeError(`an AML package of ${body.length} bytes is too long`);
}
