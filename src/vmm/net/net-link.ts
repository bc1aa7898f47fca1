/**
 * The host's end of a network device, as the device uses it: frames go between it and guest memory natively.
 *
 * Thread: the device thread.
 */
import {
  dropHeldFrame,
  flushFrames,
  isPortGone,
  type NetPort,
  netPortFd,
  receiveFrame,
  sendBytes,
  sendFrame,
  setTapOffloads,
} from '../../native/net.js';

/** `ranges`, `count` and the results are those of src/native/net.ts. */
export interface NetLink {
  /** Ready for reading while frames wait, and for writing while frames can be sent. */
  readonly fd: number;
  /** Whether frames may wait here that `fd` does not tell of. */
  readonly buffers: boolean;
  receive(ranges: Float64Array, count: number): number;
  /** Drops the frame for which there was no room. */
  dropHeld(): void;
  send(ranges: Float64Array, count: number): number;
  sendBytes(bytes: Uint8Array): number;
  flush(): number;
  /** Whether the other end is gone. */
  readonly isGone: boolean;
  /** What the guest takes: flags of TapOffload. Returns false if the host refuses. */
  setOffloads(flags: number): boolean;
}

export class NativeNetLink implements NetLink {
  readonly #port: NetPort;
  readonly fd: number;
  readonly buffers: boolean;

  constructor(port: NetPort, { isStream }: { isStream: boolean }) {
    this.#port = port;
    this.fd = netPortFd(port);
    this.buffers = isStream;
  }

  receive(ranges: Float64Array, count: number): number {
    return receiveFrame(this.#port, ranges, count);
  }

  dropHeld(): void {
    dropHeldFrame(this.#port);
  }

  send(ranges: Float64Array, count: number): number {
    return sendFrame(this.#port, ranges, count);
  }

  sendBytes(bytes: Uint8Array): number {
    return sendBytes(this.#port, bytes);
  }

  flush(): number {
    return flushFrames(this.#port);
  }

  get isGone(): boolean {
    return isPortGone(this.#port);
  }

  setOffloads(flags: number): boolean {
    try {
      setTapOffloads(this.#port, flags);
      return true;
    } catch {
      return false;
    }
  }
}
