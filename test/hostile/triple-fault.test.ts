/** What the log says of a triple fault, on the kind of KVM that this host has. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { Machine } from '../../src/vmm/machine.js';
import { requireKvm } from '../kvm/kvm.js';
import { HostileGuests } from './guests.js';

describe('the log of a triple fault', function () {
  this.timeout(60_000);
  let guests: HostileGuests | null = null;
  before(function () {
    requireKvm(this);
    guests = new HostileGuests();
  });
  after(() => guests?.remove());

  it('names the address of the instruction, but not where KVM has reset the vCPU before', async () => {
    const { write } = process.stderr;
    let log = '';
    process.stderr.write = ((text: string) => {
      log += text;
      return true;
    }) as typeof write;
    try {
      const machine = await Machine.create({
        kernel: guests!.kernel('triple-fault'),
        initrd: null,
        cmdline: null,
        memoryBytes: 64 << 20,
        cpus: 1,
      });
      const ended = once(machine, 'end');
      await machine.resume();
      machine.writeConsole(Buffer.from('g'));
      const [end] = await ended;
      assert.equal(end.kind, 'reset');
    } finally {
      process.stderr.write = write;
    }
    const { kind } = describeHost();
    const at = kind === 'vmx' || kind === 'pvm' ? ' at rip 0x200100' : '';
    assert.equal(log, `vCPU 0 reset the machine by a triple fault${at}\n`);
  });
});
