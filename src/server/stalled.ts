/**
 * Clients that stop in the middle of a transfer, or never end it: they would keep its place and its files for ever.
 *
 * Invariant: a client is never ended because the server itself is slow.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { HttpError } from '../machine/http-status.js';

/** A client that takes or brings nothing for so long does not come back. */
const STALLED_MS = 60_000;
/** The rest of a body that nobody reads has so long to come. */
const LINGER_MS = 10_000;
/** An upload that brings less in that time has stalled, too. A download moves in parts of this size. */
const LEAST_BYTES = 64 * 1024;

/** Destroys an answer that its client does not take. */
export function endIfNotTaken(response: ServerResponse, stalledMs = STALLED_MS): void {
  let takenBytes = -1;
  const watchdog = setInterval(() => {
    const { bytesWritten = 0 } = response.socket ?? {};
    if (response.writableNeedDrain && bytesWritten === takenBytes) response.destroy();
    takenBytes = bytesWritten;
  }, stalledMs);
  response.once('close', () => clearInterval(watchdog));
}

/**
 * The body of a request, which is destroyed when it stalls. Who stops reading leaves the rest of the body. Errors:
 * HttpError (408; 400: the client has hung up).
 */
export async function* unlessStalled(body: IncomingMessage, stalledMs = STALLED_MS): AsyncGenerator<Buffer> {
  let broughtBytes = 0;
  const watchdog = setInterval(() => {
    // What lies there waits for the server.
    if (broughtBytes < LEAST_BYTES && body.readableLength === 0)
      body.destroy(new HttpError(408, 'the upload has stalled'));
    broughtBytes = 0;
  }, stalledMs);
  try {
    for await (const part of body.iterator({ destroyOnReturn: false })) {
      broughtBytes += (part as Buffer).length;
      yield part as Buffer;
    }
  } catch (error) {
    const isHungUp = (error as NodeJS.ErrnoException).code === 'ECONNRESET';
    throw isHungUp ? new HttpError(400, 'the client ended the upload too early') : error;
  } finally {
    clearInterval(watchdog);
  }
}

/**
 * Ends a request that was answered before its body had come, if the rest does not come soon: Node would read and drop
 * it for as long as it comes. (Were it ended at once, the client might not see the answer.)
 */
export function endUnread(body: IncomingMessage, lingerMs = LINGER_MS): void {
  if (body.complete) return;
  setTimeout(() => {
    // Another request may have the connection by now.
    if (!body.complete) body.destroy();
  }, lingerMs).unref();
}
