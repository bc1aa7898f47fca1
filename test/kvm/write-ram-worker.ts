/** Writes guest memory from a Worker, as the device thread does. */
import { workerData } from 'node:worker_threads';
import type { MemorySlot } from '../../src/vmm/kvm/vm.js';
import { GuestRam } from '../../src/vmm/memory/guest-memory.js';

const { slots, gpa, text } = workerData as { slots: MemorySlot[]; gpa: number; text: string };
new GuestRam(slots).write(gpa, Buffer.from(text));
