/**
 * The contract of every virtio device: wherever its work is interrupted by a pause, or by a save and a restore, every
 * request is answered once, rightly, and its driver is never left waiting.
 *
 * Doorbells and interrupts that are under way at a save are lost. LIVESNAP_SEED=N repeats a run.
 */
import assert from 'node:assert/strict';
import { random } from '../../unit/vmm/seeded-random.js';
import { DriverTwin, VirtioRig } from '../../unit/vmm/virtio/driver-twin.js';
import { type OpenSubject, SUBJECTS } from './subjects.js';

const seed = Number(process.env.LIVESNAP_SEED ?? Date.now() % 1_000_000);
const ROUNDS = 20;
const STEPS = 150;

/** A driver that works, and is moved from machine to machine. */
class Work {
  readonly below: (n: number) => number;
  readonly subject: OpenSubject;
  readonly driver: DriverTwin;
  sent = 0;
  answered = 0;

  constructor(subject: OpenSubject, roundSeed: number) {
    this.below = random(roundSeed);
    this.subject = subject;
    this.driver = new DriverTwin(VirtioRig.start(subject.descriptor()), {
      eventIdx: this.below(2) < 1,
      indirect: this.below(2) < 1,
      queueSize: 2 ** (2 + Math.floor(this.below(4))),
    });
    this.driver.start(subject.features);
  }

  async step(): Promise<void> {
    const { rig } = this.driver;
    switch (Math.floor(this.below(6))) {
      case 0:
      case 1:
        if (!this.driver.queues[0]!.canOffer) break;
        this.driver.send(this.subject.request(this.below));
        this.sent++;
        break;
      case 2:
        rig.hear();
        break;
      case 3:
        await this.subject.work(rig, this.below);
        break;
      case 4:
        this.collect();
        break;
      case 5:
        if (this.below(4) < 1) await this.interrupt();
    }
  }

  collect(): void {
    for (const answer of this.driver.collect()) {
      this.subject.check(answer);
      this.answered++;
    }
  }

  /** A pause, and half of the time a restore of what was saved in it. */
  async interrupt(): Promise<void> {
    const { rig } = this.driver;
    rig.device.pausable!.suspend();
    if (this.below(2) < 1) await this.subject.work(rig, this.below);
    rig.device.pausable!.freeze();
    const saved = rig.save();
    // What ends while the machine is paused is not in the snapshot.
    if (this.below(2) < 1) await this.subject.work(rig, this.below);
    if (this.below(2) < 1) {
      rig.resume();
      saved.ram.close();
      return;
    }
    let restored = VirtioRig.restore(saved, this.subject.descriptor());
    saved.ram.close();
    if (this.below(4) < 1) {
      const again = restored.save();
      restored.close();
      restored = VirtioRig.restore(again, this.subject.descriptor());
      again.ram.close();
    }
    this.driver.moveTo(restored);
    restored.resume();
    rig.close();
  }

  /** The device and the driver do what they still have to do, and nothing else. */
  async settle(): Promise<void> {
    const { rig, queues } = this.driver;
    for (let idle = 0; idle < 3 && queues[0]!.waiting.length > 0; idle++) {
      const before = this.answered;
      for (let i = 0; i < 100; i++) {
        rig.hear();
        await this.subject.work(rig, this.below);
        this.collect();
      }
      if (this.answered > before) idle = 0;
    }
    assert.deepEqual(queues[0]!.waiting, [], 'no request is left without an answer');
    assert.equal(this.answered, this.sent);
    assert.deepEqual(rig.machine.events, [], 'nothing went wrong');
  }
}

for (const subject of SUBJECTS) {
  describe(`the virtio device ${subject.name} (LIVESNAP_SEED=${seed})`, function () {
    this.timeout(60_000);

    it('answers each request once, whenever it is paused, saved and restored', async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const open = subject.open();
        const work = new Work(open, seed * ROUNDS + round);
        try {
          for (let i = 0; i < STEPS; i++) await work.step();
          await work.settle();
        } finally {
          work.driver.rig.close();
          open.close();
        }
      }
    });

    it('is reset in the middle of its work and starts anew', async () => {
      const open = subject.open();
      const work = new Work(open, seed);
      try {
        for (let round = 0; round < 20; round++) {
          for (let i = 0; i < 10; i++) await work.step();
          const { rig } = work.driver;
          rig.write(0x070, 0);
          for (let i = 0; i < 1000 && rig.read(0x070) !== 0; i++) await open.work(rig, work.below);
          assert.equal(rig.read(0x070), 0);
          assert.equal(rig.machine.heldAccesses, 0);
          rig.hear();
          rig.takeInterrupt();
          work.driver.start(open.features);
          [work.sent, work.answered] = [0, 0];
        }
        await work.settle();
      } finally {
        work.driver.rig.close();
        open.close();
      }
    });
  });
}
