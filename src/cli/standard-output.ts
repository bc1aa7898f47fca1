/**
 * Handling of standard streams that cannot be written.
 *
 * Invariants:
 * - An incomplete result is a failure, with one sentence on stderr.
 * - A reader that closes the pipe (`| head`) is no failure.
 * - A message that stderr cannot take never ends the work.
 */
import { fstatSync, writeSync } from 'node:fs';
import { ExitStatus, LivesnapError } from '../errors.js';
import { complain } from './output.js';

const STDOUT = 1;

/** Ends the process, because no further output would arrive. */
function end(error: NodeJS.ErrnoException): never {
  // The reader closed the pipe.
  if (error.code === 'EPIPE') process.exit(0);
  complain(
    new LivesnapError('SYSTEM', `cannot write the standard output: ${error.message}`, {
      hint: 'The output is incomplete; redirect it elsewhere.',
      cause: error,
    }),
  );
  process.exit(ExitStatus.failed);
}

export function guardStandardStreams(): void {
  process.stdout.on('error', end);
  process.stderr.on('error', () => {});
  const { isTTY } = process.stdout;
  const kind = fstatSync(STDOUT);
  if (isTTY || kind.isFIFO() || kind.isSocket()) return;
  // Node drops the bytes that do not fit into a file, and writes nothing to a block device.
  process.stdout._write = (bytes: Uint8Array, _encoding, done) => {
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(STDOUT, bytes, at);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}

/** Resolves when all output is written, even into a slow pipe. */
export const flush = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => {
    // serve-store ends its output itself.
    if (stream.writableFinished) resolve();
    else if (stream.writableEnded) stream.once('finish', resolve);
    else
      stream.write('', (error) => {
        if (error && stream === process.stdout) end(error);
        resolve();
      });
  });
