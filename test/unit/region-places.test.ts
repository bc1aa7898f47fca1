import assert from 'node:assert/strict';
import { placesOf } from '../../src/region-places.js';

describe('a place in a region', () => {
  it('is an address in RAM, and an offset in a disk or file', () => {
    assert.equal(placesOf('ram@0x0', 0x1000, 0x3000), '0x1000 to 0x3000 of ram@0x0');
    assert.equal(placesOf('disk0', 0x1000, 0x3000), 'disk0 offset 0x1000 to 0x3000');
    assert.equal(placesOf('file', 0, 0x200), 'file offset 0x0 to 0x200');
  });
});
