// Makes the two bzImages of the probe: `pack.mjs WRAPPER FLAT ELF GZIP_IMAGE RAW_IMAGE`. WRAPPER is bzimage.S as
// raw bytes, FLAT the probe's memory image, ELF the kernel for loaders that unpack payloads. Both images carry FLAT
// for their own 64-bit entry; they differ in the payload: ELF in gzip, or in a format that no loader knows.
// Header fields: Documentation/arch/x86/boot.rst.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const SYSSIZE = 0x1f4;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SETUP_BYTES = 1024;
const FLAT_WORDS = SETUP_BYTES + 0x248;

const [wrapper, flat, elf] = process.argv.slice(2, 5).map((file) => readFileSync(file));
const [gzipImage, rawImage] = process.argv.slice(5);

function padded(bytes, multiple) {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & (multiple - 1))]);
}

function pack(file, payload) {
  const words = padded(flat, 8);
  const image = padded(Buffer.concat([wrapper, words, payload]), 16);
  image.writeUInt32LE((image.length - SETUP_BYTES) / 16, SYSSIZE);
  image.writeUInt32LE(wrapper.length - SETUP_BYTES + words.length, PAYLOAD_OFFSET);
  image.writeUInt32LE(payload.length, PAYLOAD_LENGTH);
  image.writeUInt32LE(words.length / 8, FLAT_WORDS);
  writeFileSync(`${file}.tmp`, image);
  renameSync(`${file}.tmp`, file);
}

pack(gzipImage, gzipSync(elf, { level: 9 }));
// No known magic number and no plain ELF: a name, then the complement of every byte.
pack(rawImage, Buffer.concat([Buffer.from('PROBERAW'), elf.map((byte) => byte ^ 0xff)]));
