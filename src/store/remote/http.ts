/**
 * A store behind a web server that serves the files of its directory: `http(s)://host/path` (docs/copy.md). Any static
 * server will do; from one that knows no ranges packs come whole.
 *
 * Invariant: no other server is asked for anything: a redirect may lead to this host, or into its network.
 */
import { LivesnapError } from '../../errors.js';
import { parseAddress, shown } from './address.js';
import { copyFromFiles } from './files-store.js';
import type { Scheme } from './remote.js';
import type { RemoteFiles, Take } from './remote-files.js';

const webServer = (example: string): Scheme => ({
  example,
  receives: false,
  open(address) {
    const base = parseHttpAddress(address, example);
    return { copy: (store, task) => copyFromFiles(new HttpFiles(base), store, task) };
  },
});

export const http = webServer('http://host/path');
export const https = webServer('https://host/path');

/** The address of the store's directory, which ends with a slash. Errors: USAGE. */
function parseHttpAddress(address: string, example: string): string {
  const { href, username, password } = parseAddress(address, example);
  if (username !== '' || password !== '')
    throw new LivesnapError('USAGE', `${shown(address)} has a user or a password`, {
      hint: `livesnap logs in to no web server: give ${example}.`,
    });
  return href.endsWith('/') ? href : `${href}/`;
}

class HttpFiles implements RemoteFiles {
  fetchedBytes = 0;

  constructor(readonly base: string) {}

  async whole(file: string, maxBytes: number, take: Take): Promise<number | null> {
    const response = await this.#request(file);
    if (response.status !== 404) return this.#consume(response, maxBytes, take);
    await response.body?.cancel();
    return null;
  }

  async tail(
    file: string,
    length: number,
    maxBytes: number,
    takeWhole: Take,
  ): Promise<{ sizeBytes: number; bytes: Buffer | null } | null> {
    const response = await this.#request(file, `bytes=-${length}`);
    if (response.status === 200)
      return { sizeBytes: await this.#consume(response, maxBytes, takeWhole), bytes: null };
    if (response.status !== 206) {
      await response.body?.cancel();
      return null;
    }
    const range = /^bytes \d+-\d+\/(\d{1,15})$/.exec(response.headers.get('content-range') ?? '');
    const sizeBytes = Number(range?.[1] ?? Number.NaN);
    if (!(sizeBytes <= maxBytes)) {
      await response.body?.cancel();
      throw this.#failed(`${file}: the server names no size that such a file can have`);
    }
    const expected = Math.min(length, sizeBytes);
    const parts: Buffer[] = [];
    if ((await this.#consume(response, expected, (part) => parts.push(part))) !== expected)
      throw this.#failed(`${file}: the server breaks off`);
    return { sizeBytes, bytes: Buffer.concat(parts) };
  }

  async range(file: string, from: number, to: number, take: Take): Promise<void> {
    const response = await this.#request(file, `bytes=${from}-${to - 1}`);
    const got = response.headers.get('content-range') ?? '';
    if (response.status !== 206 || !got.startsWith(`bytes ${from}-${to - 1}/`)) {
      await response.body?.cancel();
      throw this.#failed(`${file}: the server does not give what it was asked for`);
    }
    if ((await this.#consume(response, to - from, take)) !== to - from)
      throw this.#failed(`${file}: the server breaks off`);
  }

  /** Errors: REMOTE_FAILED, unless the server has the file, or says that there is no such file or part. */
  async #request(file: string, range?: string): Promise<Response> {
    let response: Response;
    try {
      // Files of a store do not shrink by compression, and lengths are to be those of the file.
      const headers = { 'accept-encoding': 'identity', ...(range === undefined ? {} : { range }) };
      response = await fetch(this.base + file, { headers, redirect: 'manual' });
    } catch (error) {
      throw new LivesnapError('REMOTE_FAILED', `${this.base} cannot be read: ${reasonOf(error)}`, {
        hint: 'Check the address; an interrupted copy resumes where it stopped.',
        cause: error,
      });
    }
    const { ok, status } = response;
    if (ok || status === 404 || status === 416) return response;
    await response.body?.cancel();
    const location = response.headers.get('location');
    if (status < 300 || status >= 400 || location === null)
      throw this.#failed(
        `${file}: the server says ${status}`,
        'The address must be that of a store’s directory, and its files readable.',
      );
    const target = JSON.stringify(location.length > 200 ? `${location.slice(0, 200)}…` : location);
    throw this.#failed(
      `${file} redirects to ${target}`,
      'Redirects are not followed. If the store is there, give that address.',
    );
  }

  /** Takes at most `maxBytes` of a response; gives how many. */
  async #consume(response: Response, maxBytes: number, take: Take): Promise<number> {
    let total = 0;
    const parts = (response.body ?? new Blob([]).stream()).getReader();
    try {
      for (;;) {
        const { done, value } = await parts.read().catch((error: unknown) => {
          throw new LivesnapError('REMOTE_FAILED', `${this.base} broke off: ${reasonOf(error)}`, {
            hint: 'What has arrived is kept: begin the copy again.',
            cause: error,
          });
        });
        if (done) return total;
        total += value.length;
        this.fetchedBytes += value.length;
        if (total > maxBytes)
          throw new LivesnapError('REMOTE_FAILED', `${this.base} sends more than a store’s file can have`);
        take(Buffer.from(value.buffer, value.byteOffset, value.length));
      }
    } finally {
      await parts.cancel().catch(() => {});
    }
  }

  #failed(what: string, hint = 'What has arrived is kept: begin the copy again.'): LivesnapError {
    return new LivesnapError('REMOTE_FAILED', `${this.base}${what}`, { hint });
  }
}

const reasonOf = (error: unknown): string =>
  ((error as Error).cause as Error | undefined)?.message ?? (error as Error).message;
