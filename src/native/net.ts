/**
 * Network ports: a tap or the stream of a user-mode network, whose frames go straight from and to memories.
 *
 * Invariants:
 * - No function blocks, except {@link openTap} while the kernel makes a tap.
 * - Every frame begins with a virtio_net_hdr_v1 of {@link NET_HEADER_BYTES}, whatever the port is.
 * - A port is used on one thread at a time. It owns its descriptor.
 *
 * `ranges` has four numbers for each range: memory, offset, length, and the number of the chain that it belongs to. The
 * first `count` ranges are used. A range outside its memory is a TypeError; a memory that was closed is MACHINE_GONE.
 */
import { addon } from './addon.js';

interface NetFunctions {
  netPortCreate(fd: number, isStream: boolean): number;
  netPortClose(port: number): void;
  netPortFd(port: number): number;
  netReceive(port: number, ranges: Float64Array, count: number): number;
  netDropHeld(port: number): void;
  netSend(port: number, ranges: Float64Array, count: number): number;
  netSendBytes(port: number, bytes: Uint8Array): number;
  netFlush(port: number): number;
  netIsGone(port: number): boolean;
  netSetOffloads(port: number, flags: number): void;
  netSocketPair(isStream: boolean): [number, number];
  tapOpen(name: string, netns: string, isNew: boolean, address: string, prefix: number): [number, boolean];
}

const native = (): NetFunctions => addon();

/** Names a port in every Worker of this process. */
export type NetPort = number;

export const NET_HEADER_BYTES = 12;

/** The longest frame with its header. */
export const MAX_NET_BYTES = NET_HEADER_BYTES + 65535 + 18;

/** What a call says of a frame (addon/net_port.cc, Outcome). */
export const NetOutcome = {
  /** Nothing was received or sent: try again when the port is ready. */
  nothing: 0,
  sent: 1,
  /** The frame is accepted. {@link flushFrames} sends the rest when the port is writable. */
  sentInPart: 2,
  /** The other end is gone. */
  gone: -1,
  /** The frame was not acceptable. */
  dropped: -2,
} as const;

/** Flags of {@link setTapOffloads} (linux/if_tun.h): what the kernel may leave to the guest. */
export const TapOffload = { checksum: 1, tso4: 2, tso6: 4, ecn: 8 } as const;

/** The descriptor becomes the port's. A stream has the length of each frame in front (4 bytes, big-endian). */
export const createNetPort = (fd: number, { isStream }: { isStream: boolean }): NetPort =>
  native().netPortCreate(fd, isStream);

/** Closes it once no call uses it. */
export const closeNetPort = (port: NetPort): void => native().netPortClose(port);

/** For watching. */
export const netPortFd = (port: NetPort): number => native().netPortFd(port);

/**
 * Receives a frame. Returns its length with the header, or a {@link NetOutcome}. A frame that is longer than the ranges
 * is kept: give it more room, or {@link dropHeldFrame}. `num_buffers` is set to the number of chains that it takes.
 */
export const receiveFrame = (port: NetPort, ranges: Float64Array, count: number): number =>
  native().netReceive(port, ranges, count);

export const dropHeldFrame = (port: NetPort): void => native().netDropHeld(port);

/** Sends a frame. Returns a {@link NetOutcome}. */
export const sendFrame = (port: NetPort, ranges: Float64Array, count: number): number =>
  native().netSend(port, ranges, count);

/** Sends a frame of livesnap's own. Returns a {@link NetOutcome}. */
export const sendBytes = (port: NetPort, bytes: Uint8Array): number => native().netSendBytes(port, bytes);

/** Sends what is left of an accepted frame: `sent`, `nothing` or `gone`. */
export const flushFrames = (port: NetPort): number => native().netFlush(port);

/** Whether the other end is gone. */
export const isPortGone = (port: NetPort): boolean => native().netIsGone(port);

/** Sets {@link TapOffload} flags. Without effect on a stream. */
export const setTapOffloads = (port: NetPort, flags: number): void => native().netSetOffloads(port, flags);

/** Two connected Unix sockets: of a stream, or of frames. */
export const netSocketPair = ({ isStream }: { isStream: boolean }): [number, number] =>
  native().netSocketPair(isStream);

export interface TapOptions {
  readonly name: string;
  /** Path of a network namespace; null: that of this process. */
  readonly netns: string | null;
  /** Makes it, and sets it up with this address. It is removed with its descriptor. Null: it exists. */
  readonly create: { readonly address: string; readonly prefix: number } | 'without address' | null;
}

/**
 * Opens a tap. Returns its descriptor, and whether the interface is up.
 * @throws SystemError whose `syscall` is the step that failed: `netns`, `setns`, `find`, `open`, `create`, `attach`,
 * `address`, `flags`, or the name of an ioctl
 */
export function openTap({ name, netns, create }: TapOptions): { fd: number; isUp: boolean } {
  const { address, prefix } =
    create !== null && typeof create === 'object' ? create : { address: '', prefix: 0 };
  const [fd, isUp] = native().tapOpen(name, netns ?? '', create !== null, address, prefix);
  return { fd, isUp };
}
