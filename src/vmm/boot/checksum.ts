/** The checksum byte of a firmware table: it makes the sum of all bytes 0 (MP and ACPI specifications). */
export function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum += byte;
  return -sum & 0xff;
}
