import assert from 'node:assert/strict';
import { MAX_VIRTIO_DEVICES, virtioWindows, windowOptions } from '../../../../src/vmm/virtio/windows.js';

describe('virtioWindows', () => {
  it('gives each device a page in the MMIO hole and an interrupt that no other device has', () => {
    const windows = virtioWindows(MAX_VIRTIO_DEVICES);
    assert.deepEqual(
      windows.map(({ gpa, gsi }) => [gpa.toString(16), gsi]),
      [5, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23].map((gsi, i) => [`d000${i.toString(16)}000`, gsi]),
    );
  });

  it('refuses more devices than there are interrupts', () => {
    assert.throws(() => virtioWindows(MAX_VIRTIO_DEVICES + 1), {
      code: 'USAGE',
      message: 'the machine would have 11 disks, networks and balloons',
    });
  });

  it('tells a kernel of them on its command line', () => {
    assert.deepEqual(windowOptions(virtioWindows(1)), ['virtio_mmio.device=4K@0xd0000000:5']);
  });
});
