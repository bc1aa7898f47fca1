/** Parts of regions as people read them: in errors of the store, and in results of `diff` and `repair`. */

const hex = (address: number): string => `0x${address.toString(16)}`;

/**
 * A part of a region, up to but not including `toBytes`: `0x1000 to 0x3000 of ram@0x0`, or `disk0 offset 0x1000 to
 * 0x3000` where a number is an offset and not an address.
 */
export function placesOf(region: string, fromBytes: number, toBytes: number): string {
  const range = `${hex(fromBytes)} to ${hex(toBytes)}`;
  return region.startsWith('ram@') ? `${range} of ${region}` : `${region} offset ${range}`;
}
