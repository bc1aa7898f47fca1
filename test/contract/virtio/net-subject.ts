/**
 * The receive queue of a network device for the contract suite and the fuzzing. A frame is one byte, repeated; it fits
 * into each buffer, so every buffer is answered by one frame.
 */
import assert from 'node:assert/strict';
import { NetFeature } from '../../../src/vmm/virtio/net.js';
import type { VirtioRig } from '../../unit/vmm/virtio/driver-twin.js';
import { FakeNetwork, HEADER } from '../../unit/vmm/virtio/net-rig.js';
import type { OpenSubject, VirtioSubject } from './subjects.js';

const LEAST_BYTES = 60;
const MOST_BYTES = 1000;
const F = NetFeature;

const subjectOf = (name: string, isStream: boolean): VirtioSubject => ({
  name,
  open(): OpenSubject {
    const networks: FakeNetwork[] = [];
    const ofRig = new WeakMap<VirtioRig, FakeNetwork>();
    return {
      descriptor() {
        const network = new FakeNetwork({ isStream });
        networks.push(network);
        return network.descriptor({ offloads: !isStream });
      },
      features: F.MRG_RXBUF | F.STATUS | F.CTRL_VQ | F.GUEST_ANNOUNCE,
      request: (below) => ({
        readable: [],
        writable: [HEADER + Math.floor(below(40)), MOST_BYTES + Math.floor(below(500))],
      }),
      check({ written }) {
        assert.equal(written.readUInt16LE(10), 1);
        const frame = written.subarray(HEADER);
        assert(frame.length >= LEAST_BYTES && frame.every((byte) => byte === frame[0]));
      },
      work(rig, below) {
        const network = ofRig.get(rig) ?? networks.at(-1)!;
        ofRig.set(rig, network);
        const length = LEAST_BYTES + Math.floor(below(MOST_BYTES - LEAST_BYTES));
        if (rig.machine.watches[0]?.events.read) network.deliver(Buffer.alloc(length, 1 + (length % 250)));
        network.run(rig);
        // What the device sends is read, so that the link never fills up.
        while (network.read() !== null) {}
        for (const timer of rig.machine.timers) timer.expire();
      },
      close() {
        for (const network of networks) network.close();
      },
    };
  },
});

export const netSubjects: readonly VirtioSubject[] = [
  subjectOf('net', false),
  subjectOf('net on a stream', true),
];
