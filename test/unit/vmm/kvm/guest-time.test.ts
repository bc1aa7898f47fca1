import assert from 'node:assert/strict';
import {
  clockNotices,
  elapsedTime,
  restoredDeadline,
  tscCycles,
} from '../../../../src/vmm/kvm/guest-time.js';

const SECOND = 1_000_000_000n;
const SAVED = 1_800_000_000n * SECOND;
const YEAR = 366n * 24n * 3600n * SECOND;

describe('the time that a restore adds to the clocks of a guest', () => {
  it('is the time since the save', () => {
    const nowNs = SAVED + 90n * SECOND;
    assert.deepEqual(elapsedTime('host', SAVED, nowNs), { addedNs: 90n * SECOND, heldBackNs: 0n, nowNs });
  });

  it('is nothing if the saved time shall be kept, and the guest stays behind by the time since', () => {
    const nowNs = SAVED + 90n * SECOND;
    assert.deepEqual(elapsedTime('saved', SAVED, nowNs), { addedNs: 0n, heldBackNs: 90n * SECOND, nowNs });
  });

  it('is nothing if the snapshot does not tell when it was saved', () => {
    for (const clock of ['host', 'saved'] as const)
      assert.deepEqual(elapsedTime(clock, undefined, SAVED), { addedNs: 0n, heldBackNs: 0n, nowNs: SAVED });
  });

  it('is nothing if the host’s clock went back or cannot be right, and the user is told', () => {
    for (const [nowNs, notice] of [
      [SAVED - 1n, /is 1 s behind the time of the save/],
      [SAVED - 90n * SECOND, /is 90 s behind the time of the save/],
      [SAVED + 11n * YEAR, /is more than 10 years ahead of the time of the save/],
    ] as const) {
      for (const clock of ['host', 'saved'] as const)
        assert.deepEqual(elapsedTime(clock, SAVED, nowNs), { addedNs: 0n, heldBackNs: 0n, nowNs });
      const notices = clockNotices('host', SAVED, nowNs);
      assert.equal(notices.length, 1);
      assert.match(notices[0]!, notice);
      assert.deepEqual(clockNotices('saved', SAVED, nowNs), []);
    }
    assert.deepEqual(clockNotices('host', SAVED, SAVED + 9n * YEAR), []);
    assert.deepEqual(clockNotices('host', SAVED, SAVED), []);
    assert.deepEqual(clockNotices('host', undefined, SAVED), []);
  });

  it('is counted by a TSC at its rate', () => {
    assert.equal(tscCycles(90n * SECOND, 2_300_000), 207_000_000_000n);
  });
});

describe('the TSC deadline of a restored timer', () => {
  const saved = { deadline: 1500n, tsc: 1000n };

  it('is as far away as it was where no time is added', () => {
    assert.equal(restoredDeadline(saved, 1010n, 0n), 1510n);
    assert.equal(restoredDeadline(saved, 90_000n, 0n), 90_500n, 'a TSC that KVM cannot set');
  });

  it('is nearer by the time that was added, on a TSC that was set and on one that cannot be', () => {
    assert.equal(restoredDeadline(saved, 1210n, 200n), 1510n);
    assert.equal(restoredDeadline(saved, 90_000n, 200n), 90_300n);
  });

  it('is now if it has passed', () => {
    assert.equal(restoredDeadline(saved, 2000n, 500n), 2000n);
    assert.equal(restoredDeadline(saved, 9000n, 8000n), 9000n);
    assert.equal(restoredDeadline({ deadline: 1000n, tsc: 1000n }, 1010n, 0n), 1010n);
  });

  it('fits into the register, whatever the snapshot says', () => {
    const most = (1n << 64n) - 1n;
    assert.equal(restoredDeadline({ deadline: most, tsc: 0n }, 1010n, 0n), most);
    assert.equal(restoredDeadline({ deadline: 1n, tsc: most }, 1010n, 0n), 1010n);
  });
});
