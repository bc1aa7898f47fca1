/**
 * What happens when a standard stream cannot be written.
 *
 * Invariants: a result that does not arrive whole is a failure, with one sentence on stderr; a reader that went away
 * (`| head`) is none; words that stderr cannot take never end the work.
 */
import { fstatSync, writeSync } from 'node:fs';
import { ExitStatus, LivesnapError } from '../errors.js';
import { complain } from './output.js';

const STDOUT = 1;

/** Ends the process: nothing it still has to say would arrive. */
function end(error: NodeJS.ErrnoException): never {
  // Nobody reads what is left.
  if (error.code === 'EPIPE') process.exit(0);
  complain(
    new LivesnapError('SYSTEM', `the standard output cannot be written: ${error.message}`, {
      hint: 'The output is incomplete.',
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
  // Node writes as much as fits into a file and forgets the rest, and writes nothing at all to a block device.
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

/** Resolves when everything written has left, even into a slow pipe. */
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
