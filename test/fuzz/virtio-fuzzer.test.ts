import assert from 'node:assert/strict';
import { SUBJECTS } from '../contract/virtio/subjects.js';
import { PlainRam } from '../unit/vmm/virtio/plain-ram.js';
import { CheckedRam } from './checked-ram.js';
import { VirtioFuzzer } from './virtio-fuzzer.js';

const MUTATIONS = 20_000;
const seed = Number(process.env.LIVESNAP_SEED ?? Date.now() % 1_000_000);

describe(`a hostile driver (LIVESNAP_SEED=${seed})`, () => {
  for (const subject of SUBJECTS) {
    it(`neither crashes nor hangs the virtio device ${subject.name}`, async () => {
      const fuzzer = await VirtioFuzzer.open(subject, seed);
      try {
        await fuzzer.run(MUTATIONS);
        const { violations, interrupts, starts } = fuzzer.counts;
        assert(Math.min(violations, interrupts, starts) > 10, JSON.stringify(fuzzer.counts));
      } finally {
        fuzzer.close();
      }
    });
  }
});

describe('CheckedRam', () => {
  it('finds an access outside RAM that is not refused, and an operation without an end', () => {
    const plain = new PlainRam([{ gpa: 0, sizeBytes: 4096 }]);
    try {
      const permissive = Object.assign(Object.create(plain.ram), {
        layout: plain.ram.layout,
        read: () => {},
      });
      assert.throws(() => new CheckedRam(permissive).read(4090, new Uint8Array(8)), /were accessed/);
      const checked = new CheckedRam(plain.ram);
      assert.throws(() => checked.read(4090, new Uint8Array(8)), RangeError);
      assert.throws(() => {
        for (;;) checked.load16(0);
      }, /does not end/);
    } finally {
      plain.close();
    }
  });
});
