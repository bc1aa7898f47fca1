import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../../../src/errors.js';
import { CPUID_ENTRY } from '../../../src/vmm/kvm/cpuid.js';
import {
  CONTROL,
  DESCRIPTOR_TABLE,
  REGS,
  SEGMENT,
  SEGMENT_NAMES,
  TABLE_NAMES,
} from '../../../src/vmm/kvm/registers.js';
import type { Fields } from '../../../src/vmm/kvm/struct.js';
import {
  decodeMachineState,
  encodeMachineState,
  type SavedMachineState,
} from '../../../src/vmm/machine-state.js';

let counter = 1;
const filled = (fields: Fields): never =>
  Object.fromEntries(
    Object.entries(fields).map(([name, size]) => [
      name,
      size === 8 ? BigInt(counter++) << 40n : counter++ & 0x7f,
    ]),
  ) as never;
const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, () => counter++ & 0xff);

function sample(): SavedMachineState {
  const chip = (id: number): Uint8Array => {
    const data = bytes(520);
    data[0] = id;
    return data;
  };
  return {
    version: 1,
    vcpus: [
      {
        mpState: 0,
        regs: filled(REGS),
        sregs: {
          segments: Object.fromEntries(SEGMENT_NAMES.map((name) => [name, filled(SEGMENT)])) as never,
          tables: Object.fromEntries(TABLE_NAMES.map((name) => [name, filled(DESCRIPTOR_TABLE)])) as never,
          control: filled(CONTROL),
        },
        xsave: bytes(4096),
        xcrs: bytes(392),
        debugRegs: bytes(128),
        lapic: bytes(1024),
        events: bytes(64),
        tscKhz: 2_250_000,
        cpuid: [{ function: 1, index: 0, flags: 0, eax: 1, ebx: 2, ecx: 0xffffffff, edx: 4 }],
        msrs: [{ index: 0x6e0, value: (1n << 64n) - 1n }],
      },
    ],
    vm: { pit: bytes(112), clockNs: 123_456_789_012_345n, irqchips: [chip(0), chip(1), chip(2)] },
    devices: { serial: { device: 'serial', version: 1, fifo: [1, 2, 3] } },
  };
}

const refusal = (state: unknown): string => {
  try {
    decodeMachineState(encodeMachineState(state as SavedMachineState));
  } catch (error) {
    assert(error instanceof LivesnapError, String(error));
    return error.code;
  }
  return 'accepted';
};

/** A copy with one field, named by its path, set to something else. */
function changed(path: string, value: unknown): unknown {
  const copy = structuredClone(sample()) as unknown as Record<string, unknown>;
  const keys = path.split('.');
  const last = keys.pop()!;
  const owner = keys.reduce((at, key) => at[key] as Record<string, unknown>, copy);
  owner[last] = value;
  return copy;
}

describe('decodeMachineState', () => {
  it('returns every register and byte that was encoded', () => {
    const state = sample();
    assert.deepEqual(decodeMachineState(encodeMachineState(state)), state);
  });

  it('refuses a state with a field that is missing or out of range', () => {
    const cases: [string, unknown][] = [
      ['vcpus', []],
      ['vcpus', Array.from({ length: 5000 }, () => null)],
      ['vcpus.0', null],
      ['vcpus.0.regs.rip', 1],
      ['vcpus.0.regs.rip', undefined],
      ['vcpus.0.sregs', null],
      ['vcpus.0.sregs.segments.cs.limit', 2 ** 32],
      ['vcpus.0.sregs.control.cr0', -1],
      ['vcpus.0.xsave', new Uint8Array(10)],
      ['vcpus.0.lapic', new Uint8Array(1023)],
      ['vcpus.0.lapic', 'x'],
      ['vcpus.0.msrs', Array.from({ length: 100_000 }, () => ({ index: 1, value: 1n }))],
      ['vcpus.0.cpuid.0.eax', -1],
      ['vcpus.0.mpState', 1.5],
      ['vm.pit', new Uint8Array(111)],
      ['vm.clockNs', 5],
      ['vm.realtimeNs', 5],
      ['vm.realtimeNs', 1n << 63n],
      ['vm.irqchips', []],
      ['vm.irqchips.1', new Uint8Array(520)],
      ['vm', null],
      ['version', 0],
    ];
    for (const [path, value] of cases) assert.equal(refusal(changed(path, value)), 'BAD_STATE', path);
  });

  it('accepts the state of the largest machine', () => {
    const state = sample();
    const [vcpu] = state.vcpus;
    const largest = {
      ...vcpu!,
      xsave: bytes(16 << 10),
      cpuid: Array.from({ length: 256 }, () => filled(CPUID_ENTRY)),
      msrs: Array.from({ length: 1024 }, (_, index) => ({
        index: 0xc0000000 + index,
        value: 2n ** 64n - 1n,
      })),
    };
    const machine = { ...state, vcpus: Array.from({ length: 254 }, () => largest) };
    assert.equal(decodeMachineState(encodeMachineState(machine)).vcpus.length, 254);
  });

  // Without the limits, parsing takes gigabytes, and the Worker runs out of memory.
  for (const [name, piece, mebibytes] of [
    ['objects', '{},', 30],
    ['arrays', '[],', 30],
    ['fields', '"a":0,', 30],
    ['bytes', '0,', 58],
  ] as const)
    it(`refuses millions of ${name} before it parses them`, () => {
      const text = Buffer.alloc(mebibytes << 20, piece);
      text.write(name === 'fields' ? '{"vcpus":{  ' : '{"vcpus":[  '); // as long as a whole number of pieces
      const worker = new Worker(new URL('./decode-state-worker.js', import.meta.url), {
        workerData: text,
        resourceLimits: { maxOldGenerationSizeMb: 64 },
      });
      return new Promise<void>((resolve, reject) => {
        worker.once('error', reject);
        worker.once('exit', () => reject(new Error('the Worker ended without an answer')));
        worker.once('message', (answer) => {
          void worker.terminate();
          resolve(
            assert.deepEqual(answer, [
              'BAD_STATE',
              'the saved state is invalid: it is larger than the state of any machine',
            ]),
          );
        });
      });
    });

  it('names the field at fault', () => {
    for (const [path, value, problem] of [
      ['vcpus', [], 'vcpus has 0 items, not 1 to 254'],
      ['vcpus.0.regs.rip', undefined, 'vcpus[0].regs.rip is missing'],
      [
        'vcpus.0.sregs.segments.cs.limit',
        2 ** 32,
        'vcpus[0].sregs.segments.cs.limit is not an integer from 0 to 4294967295',
      ],
      ['vcpus.0.lapic', new Uint8Array(1023), 'vcpus[0].lapic is not 1024 bytes'],
      [
        'vm.irqchips.1',
        new Uint8Array(520),
        'vm.irqchips are not in the order master PIC, slave PIC, IOAPIC',
      ],
    ] as const)
      assert.throws(() => decodeMachineState(encodeMachineState(changed(path, value) as SavedMachineState)), {
        code: 'BAD_STATE',
        message: `the saved state is invalid: ${problem}`,
      });
  });

  it('refuses a newer version as NEWER_FORMAT', () => {
    assert.equal(refusal(changed('version', 2)), 'NEWER_FORMAT');
  });

  it('refuses text that is not JSON, and JSON that is not an object', () => {
    for (const text of ['', '{', 'null', '[]', '\xff']) {
      assert.throws(() => decodeMachineState(Buffer.from(text, 'latin1')), { code: 'BAD_STATE' });
    }
  });

  it('has a console with limits, or none as in older snapshots', () => {
    assert.equal(decodeMachineState(encodeMachineState(sample())).console, undefined);
    const console = { history: bytes(64 << 10), starter: bytes(64 << 10), starterInLine: true };
    console.history.fill(0x7b); // braces are no structure here
    console.starter.fill(0x3a);
    assert.deepEqual(decodeMachineState(encodeMachineState({ ...sample(), console })).console, console);
    const asBuffer = { ...console, history: Buffer.from(console.history) };
    assert.deepEqual(
      decodeMachineState(encodeMachineState({ ...sample(), console: asBuffer })).console,
      console,
    );
    for (const wrong of [
      { ...console, history: bytes((64 << 10) + 1) },
      { ...console, starter: bytes((64 << 10) + 1) },
      { ...console, history: 'text' },
      { history: console.history },
      null,
    ])
      assert.throws(
        () => decodeMachineState(encodeMachineState({ ...sample(), console: wrong as never })),
        (error) =>
          error instanceof LivesnapError && error.code === 'BAD_STATE' && /console/.test(error.message),
      );
  });
});
