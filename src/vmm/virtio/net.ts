/**
 * A network device: virtio 1.2, section 5.1. Frames go between guest memory and a {@link NetLink} without JavaScript.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - No frame is dropped in silence. Without receive buffers the link is not read, and frames wait in the host. While the
 *   link is full, frames wait in the guest's queue. A frame that the host refuses is counted.
 * - No chain is in flight between two events: chains that are not used are put back. So a pause waits for nothing, and a
 *   restored machine sends no frame twice.
 * - One event moves a bounded number of frames, so that a flood does not starve the guest's exits.
 * - A restored device announces its address: by RARP frames of its own, and by asking the driver to (GUEST_ANNOUNCE).
 *
 * Not emulated: several pairs of queues, RSS, receive filters, VLAN filters, UFO and USO, an address that the driver sets.
 */
import { MAX_NET_BYTES, NET_HEADER_BYTES, NetOutcome, TapOffload } from '../../native/net.js';
import type { DeviceParts, DeviceState, Timer, Watch } from '../devices/device.js';
import { deviceState } from '../devices/device-state.js';
import { announcement, MAC_BYTES, macBytes } from '../net/mac.js';
import type { NetCounters } from '../net/net-counters.js';
import type { NetLink } from '../net/net-link.js';
import type { Chain, GuestRange } from './descriptor-chain.js';
import { answerCommand, readCommand } from './net-control.js';
import { hex64, toHex } from './queue-state.js';
import type { SplitQueue } from './split-queue.js';
import { DeviceType, type VirtioDescriptor, type VirtioDevice, type VirtioLink } from './virtio-device.js';

/** Feature bits (section 5.1.3). */
export const NetFeature = {
  CSUM: 1n << 0n,
  GUEST_CSUM: 1n << 1n,
  CTRL_GUEST_OFFLOADS: 1n << 2n,
  MAC: 1n << 5n,
  GUEST_TSO4: 1n << 7n,
  GUEST_TSO6: 1n << 8n,
  GUEST_ECN: 1n << 9n,
  HOST_TSO4: 1n << 11n,
  HOST_TSO6: 1n << 12n,
  HOST_ECN: 1n << 13n,
  MRG_RXBUF: 1n << 15n,
  STATUS: 1n << 16n,
  CTRL_VQ: 1n << 17n,
  GUEST_ANNOUNCE: 1n << 21n,
} as const;

const F = NetFeature;
const GUEST_OFFLOADS = F.GUEST_CSUM | F.GUEST_TSO4 | F.GUEST_TSO6 | F.GUEST_ECN;
const ALWAYS = F.MAC | F.STATUS | F.MRG_RXBUF | F.CTRL_VQ | F.GUEST_ANNOUNCE;
const WITH_OFFLOADS =
  GUEST_OFFLOADS | F.CSUM | F.HOST_TSO4 | F.HOST_TSO6 | F.HOST_ECN | F.CTRL_GUEST_OFFLOADS;

/** Bits of the configuration's status (section 5.1.4). */
export const NetStatus = { linkUp: 1, announce: 2 } as const;
/** mac, then status. */
const CONFIG_BYTES = MAC_BYTES + 2;

export const NetQueue = { receive: 0, transmit: 1, control: 2 } as const;
const QUEUE_SIZES = [256, 256, 64] as const;

/** What one event moves at most, in each direction. */
const EVENT_FRAMES = 64;
const EVENT_BYTES = 1 << 19;
/** Ranges that one call gets: some more than a chain may have. */
const MAX_CALL_RANGES = 2048;
/** The room that is prepared for a frame, while frames are short. */
const SHORT_FRAME_BYTES = 2048;
/** After so many short frames no long one is expected. */
const SHORT_FRAMES = 32;
/** When a restored device announces itself, after the first time. */
const ANNOUNCE_AFTER_MS = [50, 150, 250, 350] as const;

const DEVICE = 'virtio-net';
const VERSION = 1;

export interface NetState extends DeviceState {
  readonly device: 'virtio-net';
  readonly version: 1;
  /** Bits of the GUEST features that are in use, in hexadecimal. */
  readonly guestOffloads: string;
}

/** What a network device belongs to. */
export interface NetParts {
  /** `net0`, `net1`, … */
  readonly name: string;
  readonly mac: string;
  /** Whether checksums and segmentation are offered. It stays so with another link after a restore. */
  readonly offloads: boolean;
  /** Null: nothing is connected, and the link is down. */
  readonly link: NetLink | null;
  readonly counters: NetCounters;
}

const bytesOf = (ranges: readonly GuestRange[]): number => {
  let sum = 0;
  for (const { length } of ranges) sum += length;
  return sum;
};

export class VirtioNet implements VirtioDevice<NetState> {
  readonly deviceType = DeviceType.net;
  readonly features: bigint;
  readonly queueSizes = QUEUE_SIZES;
  readonly config = Buffer.alloc(CONFIG_BYTES);
  readonly #parts: DeviceParts;
  readonly #virtio: VirtioLink;
  readonly #net: NetParts;
  readonly #counters: NetCounters;
  readonly #receiveAgain: Timer;
  readonly #transmitAgain: Timer;
  readonly #announceAgain: Timer;
  readonly #ranges = new Float64Array(4 * MAX_CALL_RANGES);
  /** Null when it is down. */
  #link: NetLink | null;
  #watch: Watch | null = null;
  #watched = { read: false, write: false };
  #queues: readonly SplitQueue[] | null = null;
  #features = 0n;
  #guestOffloads = 0n;
  /** The offloads of a restored device, until it is activated. */
  #savedOffloads: bigint | null;
  /** How many announcements were sent; null: none is to be sent. */
  #announced: number | null;
  /** An accepted frame is not sent whole. */
  #isSending = false;
  /** Receive chains that were popped in this event and are not used yet. */
  #chains: Chain[] = [];
  #room = SHORT_FRAME_BYTES;
  #shortFrames = 0;
  /** The length of the frame that waits for room; 0: none. */
  #heldBytes = 0;
  #loggedDrop = false;

  constructor(parts: DeviceParts, virtio: VirtioLink, net: NetParts, saved: NetState | null) {
    this.#parts = parts;
    this.#virtio = virtio;
    this.#net = net;
    this.#counters = net.counters;
    this.#link = net.link;
    this.features = ALWAYS | (net.offloads ? WITH_OFFLOADS : 0n);
    this.#savedOffloads = saved && BigInt(saved.guestOffloads);
    this.#announced = saved && 0;
    macBytes(net.mac).copy(this.config);
    this.#receiveAgain = parts.timer(() => this.#receive());
    this.#transmitAgain = parts.timer(() => this.#transmit());
    this.#announceAgain = parts.timer(() => this.#announce());
    if (net.link !== null) {
      this.#watch = parts.watch(net.link.fd, this.#watched, () => this.#ready());
      this.#setStatus(NetStatus.linkUp, true);
    }
    this.#counters.isUp = net.link !== null;
  }

  activate(queues: readonly SplitQueue[], features: bigint): void {
    this.#queues = queues;
    this.#features = features;
    this.#setOffloads(this.#savedOffloads ?? GUEST_OFFLOADS);
    this.#savedOffloads = null;
    if (this.#announced === null) return;
    const canAnnounce = F.GUEST_ANNOUNCE | F.CTRL_VQ | F.STATUS;
    if (this.#link !== null && (features & canAnnounce) === canAnnounce)
      this.#setStatus(NetStatus.announce, true);
    // Also without a link: the driver may have known one.
    this.#virtio.configChanged();
  }

  notify(queue: number): void {
    if (this.#announced === 0) this.#announce();
    if (queue === NetQueue.receive) this.#receive();
    else if (queue === NetQueue.transmit) this.#transmit();
    else this.#control();
  }

  reset(done: () => void): void {
    this.#queues = null;
    this.#chains = [];
    for (const timer of [this.#receiveAgain, this.#transmitAgain, this.#announceAgain]) timer.set(null);
    this.#announced = null;
    this.#savedOffloads = null;
    this.#dropHeld();
    this.#setOffloads(0n);
    this.#setStatus(NetStatus.announce, false);
    this.#watchFor({ read: false });
    done();
  }

  save(): NetState {
    const offloads = this.#savedOffloads ?? this.#guestOffloads;
    return { device: DEVICE, version: VERSION, guestOffloads: toHex(offloads) };
  }

  #ready(): void {
    const { read, write } = this.#watched;
    if (!read && !write && this.#link?.isGone) this.#lost();
    if (write) this.#writable();
    if (read) this.#receive();
  }

  /** Fills buffers of the guest with frames, until there are no frames, no buffers, or it was enough for one event. */
  #receive(): void {
    const queue = this.#queues?.[NetQueue.receive];
    const link = this.#link;
    if (!queue || link === null) return;
    let bytes = 0;
    let isWaiting = false;
    for (let frames = 0; ; frames++) {
      if (frames === EVENT_FRAMES || bytes >= EVENT_BYTES) {
        isWaiting = true;
        if (link.buffers) this.#receiveAgain.set(0);
        break;
      }
      const room = this.#gather(queue);
      if (room === 0) break;
      const length = link.receive(this.#ranges, this.#fillRanges());
      if (length === NetOutcome.nothing) {
        isWaiting = true;
        break;
      }
      if (length === NetOutcome.gone) {
        this.#lost();
        break;
      }
      if (length === NetOutcome.dropped) {
        this.#counters.add('receivedDropped', 1);
        continue;
      }
      this.#markWritten(Math.min(length, room));
      if (length > room) {
        this.#heldBytes = length;
        this.#room = MAX_NET_BYTES;
        continue;
      }
      this.#received(queue, length);
      bytes += length;
    }
    queue.putBack(this.#chains);
    this.#chains = [];
    queue.flush();
    this.#watchFor({ read: isWaiting });
  }

  /** Pops buffers for the next frame. Returns the room in them; 0: the guest has to offer more first. */
  #gather(queue: SplitQueue): number {
    const isMergeable = (this.#features & F.MRG_RXBUF) !== 0n;
    const wanted = isMergeable ? Math.max(this.#room, this.#heldBytes) : 1;
    let room = 0;
    let ranges = 0;
    for (const { writable } of this.#chains) {
      room += bytesOf(writable);
      ranges += writable.length;
    }
    while (room < wanted && ranges < MAX_CALL_RANGES / 2) {
      const chain = queue.pop();
      if (chain === null) break;
      if (chain.readable.length > 0) {
        this.#virtio.fail('offered a readable receive buffer');
        return 0;
      }
      this.#chains.push(chain);
      room += bytesOf(chain.writable);
      ranges += chain.writable.length;
    }
    if (room >= this.#heldBytes) return room;
    const canGrow = isMergeable && this.#chains.length < queue.size && ranges < MAX_CALL_RANGES / 2;
    if (this.#chains.length === 0 || canGrow) return 0;
    // No driver that offers such buffers can receive the frame.
    this.#dropHeld();
    return room;
  }

  /** Hands a frame of `length` bytes, which is in the first chains, to the driver. */
  #received(queue: SplitQueue, length: number): void {
    let left = length;
    let used = 0;
    for (; left > 0; used++) {
      const { head, writable } = this.#chains[used]!;
      const written = Math.min(bytesOf(writable), left);
      queue.complete(head, written);
      left -= written;
    }
    this.#chains.splice(0, used);
    this.#heldBytes = 0;
    this.#counters.add('receivedFrames', 1);
    this.#counters.add('receivedBytes', length - NET_HEADER_BYTES);
    this.#shortFrames = length <= SHORT_FRAME_BYTES ? this.#shortFrames + 1 : 0;
    if (this.#shortFrames === SHORT_FRAMES) this.#room = SHORT_FRAME_BYTES;
  }

  #dropHeld(): void {
    if (this.#heldBytes === 0) return;
    this.#link?.dropHeld();
    this.#heldBytes = 0;
    this.#counters.add('receivedDropped', 1);
    this.#logDrop('a frame is longer than the buffers that the guest offers');
  }

  /** Sends frames, until there are none, the link is full, or it was enough for one event. */
  #transmit(): void {
    const queue = this.#queues?.[NetQueue.transmit];
    if (!queue || this.#isSending) return;
    let bytes = 0;
    for (let frames = 0; ; frames++) {
      if (frames === EVENT_FRAMES || bytes >= EVENT_BYTES) {
        this.#transmitAgain.set(0);
        break;
      }
      const chain = queue.pop();
      if (chain === null) break;
      if (chain.writable.length > 0) {
        this.#virtio.fail('offered a writable transmit buffer');
        return;
      }
      const length = bytesOf(chain.readable);
      const outcome = this.#send(chain, length);
      if (outcome === NetOutcome.nothing) {
        queue.putBack([chain]);
        this.#watchFor({ write: true });
        break;
      }
      queue.complete(chain.head, 0);
      bytes += length;
      if (outcome === NetOutcome.gone) this.#lost();
      const isSent = outcome === NetOutcome.sent || outcome === NetOutcome.sentInPart;
      this.#counters.add(isSent ? 'sentFrames' : 'sentDropped', 1);
      if (isSent) this.#counters.add('sentBytes', length - NET_HEADER_BYTES);
      else if (this.#link !== null) this.#logDrop('the host refuses a frame of the guest');
      if (outcome === NetOutcome.sentInPart) {
        this.#isSending = true;
        this.#watchFor({ write: true });
        break;
      }
    }
    queue.flush();
  }

  #send({ readable }: Chain, length: number): number {
    if (this.#link === null || length > MAX_NET_BYTES) return NetOutcome.dropped;
    readable.forEach((range, i) => {
      this.#putRange(i, range, 0);
    });
    return this.#link.send(this.#ranges, readable.length);
  }

  #writable(): void {
    if (this.#isSending) {
      const outcome = this.#link?.flush();
      if (outcome === NetOutcome.nothing) return;
      this.#isSending = false;
      if (outcome === NetOutcome.gone) this.#lost();
    }
    this.#watchFor({ write: false });
    this.#transmit();
  }

  #control(): void {
    const queue = this.#queues?.[NetQueue.control];
    if (!queue) return;
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      const answerBytes = answerCommand(this.#parts.memory, chain, this.#perform(chain));
      if (answerBytes === null) {
        this.#virtio.fail('offered a control command without room for its answer');
        return;
      }
      queue.complete(chain.head, answerBytes);
    }
    queue.flush();
  }

  /** Returns whether the command succeeded. */
  #perform(chain: Chain): boolean {
    const command = readCommand(this.#parts.memory, chain);
    if (command.kind === 'announced') {
      this.#setStatus(NetStatus.announce, false);
      return (this.#features & F.GUEST_ANNOUNCE) !== 0n;
    }
    if (command.kind === 'unknown' || (this.#features & F.CTRL_GUEST_OFFLOADS) === 0n) return false;
    if ((command.offloads & ~(this.#features & GUEST_OFFLOADS)) !== 0n) return false;
    return this.#setOffloads(command.offloads);
  }

  /** Returns false if the host refuses. */
  #setOffloads(wanted: bigint): boolean {
    this.#guestOffloads = wanted & this.#features & GUEST_OFFLOADS;
    const has = (bit: bigint): boolean => (this.#guestOffloads & bit) !== 0n;
    let flags = 0;
    // Each of the others needs the checksum (section 5.1.3.1).
    if (has(F.GUEST_CSUM)) {
      flags = TapOffload.checksum;
      if (has(F.GUEST_TSO4)) flags |= TapOffload.tso4;
      if (has(F.GUEST_TSO6)) flags |= TapOffload.tso6;
      if (has(F.GUEST_ECN) && flags !== TapOffload.checksum) flags |= TapOffload.ecn;
    }
    if (this.#link === null || this.#link.setOffloads(flags)) return true;
    this.#parts.log(`${this.#net.name}: the tap refuses the offloads 0x${flags.toString(16)}`);
    return false;
  }

  /** Tells the network where the guest is now: several times, because a frame may get lost. */
  #announce(): void {
    if (this.#link === null || this.#announced === null) return;
    const delayMs = ANNOUNCE_AFTER_MS[this.#announced++];
    if (delayMs === undefined) this.#announced = null;
    else this.#announceAgain.set(delayMs);
    if (!this.#isSending && this.#link.sendBytes(announcement(this.#net.mac)) === NetOutcome.sentInPart) {
      this.#isSending = true;
      this.#watchFor({ write: true });
    }
  }

  /** The other end is gone: the link goes down for good. */
  #lost(): void {
    if (this.#link === null) return;
    this.#watch?.end();
    this.#watch = null;
    this.#link = null;
    this.#isSending = false;
    this.#heldBytes = 0;
    this.#counters.isUp = false;
    this.#setStatus(NetStatus.linkUp | NetStatus.announce, false);
    this.#parts.log(`${this.#net.name}: its network is gone; the link is down`);
    this.#virtio.configChanged();
    this.#transmit();
  }

  #setStatus(bits: number, isSet: boolean): void {
    const status = this.config.readUInt16LE(MAC_BYTES);
    this.config.writeUInt16LE(isSet ? status | bits : status & ~bits, MAC_BYTES);
  }

  #watchFor(change: { readonly read?: boolean; readonly write?: boolean }): void {
    const watched = { ...this.#watched, ...change };
    if (watched.read === this.#watched.read && watched.write === this.#watched.write) return;
    this.#watched = watched;
    this.#watch?.set(watched);
  }

  /** Returns how many ranges the popped chains have. */
  #fillRanges(): number {
    let count = 0;
    this.#chains.forEach(({ writable }, chain) => {
      for (const range of writable) this.#putRange(count++, range, chain);
    });
    return count;
  }

  #putRange(index: number, { gpa, length }: GuestRange, chain: number): void {
    const { memory, offset } = this.#parts.memory.locate(gpa, length);
    const at = 4 * index;
    this.#ranges[at] = memory;
    this.#ranges[at + 1] = offset;
    this.#ranges[at + 2] = length;
    this.#ranges[at + 3] = chain;
  }

  /** The first `length` bytes of the popped chains. */
  #markWritten(length: number): void {
    let left = length;
    for (const { writable } of this.#chains)
      for (const range of writable) {
        if (left === 0) return;
        const written = Math.min(range.length, left);
        this.#parts.memory.markWritten(range.gpa, written);
        left -= written;
      }
  }

  /** The first one only: a guest must not fill the log. The counters have all. */
  #logDrop(why: string): void {
    if (this.#loggedDrop) return;
    this.#loggedDrop = true;
    this.#parts.log(`${this.#net.name}: ${why}; it is dropped, as further ones will be`);
  }
}

/** A network device of a machine. */
export const virtioNet = (net: NetParts): VirtioDescriptor<VirtioNet, NetState> => ({
  name: net.name,
  state: deviceState<NetState>(DEVICE, VERSION, { guestOffloads: hex64 }),
  create: (parts, link) => new VirtioNet(parts, link, net, null),
  restore: (parts, link, state) => new VirtioNet(parts, link, net, state),
});
