import assert from 'node:assert/strict';
import { Timers } from '../../../src/vmm/timers.js';

describe('Timers', () => {
  let nowMs = 0;
  const make = () => {
    nowMs = 1000;
    const calls: string[] = [];
    const timers = new Timers(() => nowMs);
    return { timers, calls, timer: (name: string) => timers.create(() => calls.push(name)) };
  };

  it('call back once, when they are due', () => {
    const { timers, calls, timer } = make();
    assert.equal(timers.waitMs, -1);
    timer('a').set(10);
    timer('b').set(20);
    assert.equal(timers.waitMs, 10);
    nowMs += 9.5;
    assert.equal(timers.waitMs, 1, 'rounded up');
    timers.run();
    assert.deepEqual(calls, []);
    nowMs += 100;
    timers.run();
    timers.run();
    assert.deepEqual(calls, ['a', 'b']);
    assert.equal(timers.waitMs, -1);
  });

  it('have the time that was set last, or none', () => {
    const { timers, calls, timer } = make();
    const [a, b] = [timer('a'), timer('b')];
    a.set(10);
    a.set(30);
    b.set(10);
    b.set(null);
    nowMs += 20;
    timers.run();
    assert.deepEqual(calls, []);
    assert.equal(timers.waitMs, 10);
  });

  it('that are set again while they call back wait for the next turn', () => {
    const { timers } = make();
    let calls = 0;
    const again = timers.create(() => {
      calls++;
      again.set(0);
    });
    again.set(0);
    timers.run();
    assert.equal(calls, 1);
    assert.equal(timers.waitMs, 0);
  });

  it('that are far away are waited for in parts, each short enough for the native wait', () => {
    const { timers, calls, timer } = make();
    timer('tomorrow').set(24 * 3_600_000);
    assert.equal(timers.waitMs, 3_600_000);
    nowMs += 3_600_000;
    timers.run();
    assert.deepEqual(calls, []);
    nowMs += 23 * 3_600_000;
    timers.run();
    assert.deepEqual(calls, ['tomorrow']);
  });

  it('do not call back when one before them has disarmed them', () => {
    const { timers, calls, timer } = make();
    const second = timer('second');
    timers.create(() => second.set(null)).set(1);
    second.set(2);
    nowMs += 10;
    timers.run();
    assert.deepEqual(calls, []);
  });
});
