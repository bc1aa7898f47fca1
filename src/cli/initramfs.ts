/**
 * Makes an initramfs with one program: a cpio archive in the format "newc", which every Linux kernel unpacks.
 * Specification: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
 */

const MAGIC = '070701';
const EXECUTABLE_FILE = 0o100755;
/** The entry that ends an archive. */
const TRAILER = 'TRAILER!!!';
const ALIGNMENT = 4;

const padded = (bytes: Buffer): Buffer =>
  Buffer.concat([bytes, Buffer.alloc(-bytes.length & (ALIGNMENT - 1))]);

function entry(name: string, inode: number, mode: number, content: Buffer): Buffer {
  const nameBytes = Buffer.from(`${name}\0`);
  const links = 1;
  // inode, mode, owner, group, links, time, size, four numbers of devices, length of the name, checksum
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, nameBytes.length, 0];
  const header = Buffer.from(MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join(''));
  return Buffer.concat([padded(Buffer.concat([header, nameBytes])), padded(content)]);
}

/** The kernel starts `program` as process 1. */
export const initramfsOf = (program: Buffer): Buffer =>
  Buffer.concat([entry('init', 1, EXECUTABLE_FILE, program), entry(TRAILER, 0, 0, Buffer.alloc(0))]);
