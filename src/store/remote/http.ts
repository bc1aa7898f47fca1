/**
 * The remote behind a web server: `http(s)://host/path` is the address of a store's directory (docs/copy.md). Any
 * static file server works. From one that does not support ranges, packs are fetched whole.
 *
 * Invariant: no other server is contacted. A redirect could lead to this host or into its network.
 */
import { LivesnapError } from '../../errors.js';
import { RESUME_HINT } from '../copy/protocol.js';
import { parseAddress, shown } from './address.js';
import { copyFromFiles } from './files-source.js';
import type { Scheme } from './remote.js';
import type { ByteSink, RemoteFiles } from './remote-files.js';

const CHECK_ADDRESS = "The address must be that of a store's directory, with files that the server can read.";

/** A page that lists a hundred thousand files. */
const MAX_LISTING_BYTES = 32 << 20;
const LINK = /\bhref\s*=\s*(?:"([^"]{1,400})"|'([^']{1,400})')/gi;

/** The name that a link to a file of the same directory stands for. Any other link gives no name of a store's file. */
function linkedName(link: string): string {
  try {
    return decodeURIComponent(link.replace(/^\.\//, ''));
  } catch {
    return '';
  }
}

const webServer = (example: string): Scheme => ({
  example,
  receives: false,
  open(address) {
    const base = parseHttpAddress(address, example);
    return { copy: (store, task) => copyFromFiles(new HttpFiles(base, task.signal), store, task) };
  },
});

export const http = webServer('http://host/path');
export const https = webServer('https://host/path');

/** Returns the address with a slash at its end. Errors: USAGE. */
function parseHttpAddress(address: string, example: string): string {
  const { href, username, password } = parseAddress(address, example);
  if (username !== '' || password !== '')
    throw new LivesnapError('USAGE', `${shown(address)} has a user name or a password`, {
      hint: `livesnap does not log in to web servers. Use the form ${example}.`,
    });
  return href.endsWith('/') ? href : `${href}/`;
}

class HttpFiles implements RemoteFiles {
  fetchedBytes = 0;

  constructor(
    readonly base: string,
    readonly signal: AbortSignal | undefined,
  ) {}

  async readWhole(file: string, maxBytes: number, sink: ByteSink): Promise<number | null> {
    const response = await this.#request(file);
    if (response.status !== 404) return this.#consume(response, maxBytes, sink);
    await response.body?.cancel();
    return null;
  }

  async readTail(
    file: string,
    length: number,
    maxBytes: number,
    wholeSink: ByteSink,
  ): Promise<{ sizeBytes: number; bytes: Buffer | null } | null> {
    const response = await this.#request(file, `bytes=-${length}`);
    if (response.status === 200)
      return { sizeBytes: await this.#consume(response, maxBytes, wholeSink), bytes: null };
    if (response.status !== 206) {
      await response.body?.cancel();
      return null;
    }
    const range = /^bytes \d+-\d+\/(\d{1,15})$/.exec(response.headers.get('content-range') ?? '');
    const sizeBytes = Number(range?.[1] ?? Number.NaN);
    if (!(sizeBytes <= maxBytes)) {
      await response.body?.cancel();
      throw this.#failed(`${file}: invalid file size in the response`);
    }
    const expected = Math.min(length, sizeBytes);
    const parts: Buffer[] = [];
    if ((await this.#consume(response, expected, (part) => parts.push(part))) !== expected)
      throw this.#failed(`${file}: the response is too short`);
    return { sizeBytes, bytes: Buffer.concat(parts) };
  }

  /** Web servers list a directory as a page with a link to each file. */
  async list(folder: string, name: RegExp): Promise<string[] | null> {
    const response = await this.#request(`${folder}/`);
    if (!response.ok) {
      await response.body?.cancel();
      return null;
    }
    const parts: Buffer[] = [];
    await this.#consume(response, MAX_LISTING_BYTES, (part) => parts.push(part));
    const page = Buffer.concat(parts).toString('utf8');
    const links = Array.from(page.matchAll(LINK), ([, quoted, single]) => linkedName(quoted ?? single!));
    return [...new Set(links.filter((link) => name.test(link)))];
  }

  async readRange(file: string, from: number, to: number, sink: ByteSink): Promise<void> {
    const response = await this.#request(file, `bytes=${from}-${to - 1}`);
    const range = response.headers.get('content-range') ?? '';
    if (response.status !== 206 || !range.startsWith(`bytes ${from}-${to - 1}/`)) {
      await response.body?.cancel();
      throw this.#failed(`${file}: the server did not send the requested range`);
    }
    if ((await this.#consume(response, to - from, sink)) !== to - from)
      throw this.#failed(`${file}: the response is too short`);
  }

  /** A response with status 2xx, 404 or 416, for a directory also 403. Errors: REMOTE_FAILED. */
  async #request(file: string, range?: string): Promise<Response> {
    let response: Response;
    try {
      // Uncompressed, so that lengths are those of the file. Files of a store hardly shrink anyway.
      const headers = { 'accept-encoding': 'identity', ...(range === undefined ? {} : { range }) };
      response = await fetch(this.base + file, { headers, redirect: 'manual', signal: this.signal ?? null });
    } catch (error) {
      throw new LivesnapError('REMOTE_FAILED', `cannot read ${this.base}: ${reasonOf(error)}`, {
        hint: 'Check the address. An interrupted copy resumes where it stopped.',
        cause: error,
      });
    }
    const { ok, status } = response;
    if (ok || status === 404 || status === 416 || (status === 403 && file.endsWith('/'))) return response;
    await response.body?.cancel();
    const location = response.headers.get('location');
    if (status < 300 || status >= 400 || location === null)
      throw this.#failed(`${file}: HTTP status ${status}`, CHECK_ADDRESS);
    const target = JSON.stringify(location.length > 200 ? `${location.slice(0, 200)}…` : location);
    throw this.#failed(
      `${file} redirects to ${target}`,
      'livesnap does not follow redirects. If the store is at the target, use that address.',
    );
  }

  /** Passes the body to `sink` and returns its length. Errors: REMOTE_FAILED (cut, or longer than `maxBytes`). */
  async #consume(response: Response, maxBytes: number, sink: ByteSink): Promise<number> {
    let total = 0;
    const parts = (response.body ?? new Blob([]).stream()).getReader();
    try {
      for (;;) {
        const { done, value } = await parts.read().catch((error: unknown) => {
          throw new LivesnapError('REMOTE_FAILED', `connection to ${this.base} lost: ${reasonOf(error)}`, {
            hint: RESUME_HINT,
            cause: error,
          });
        });
        if (done) return total;
        total += value.length;
        this.fetchedBytes += value.length;
        if (total > maxBytes) throw this.#failed(': the response is too long', CHECK_ADDRESS);
        sink(Buffer.from(value.buffer, value.byteOffset, value.length));
      }
    } finally {
      await parts.cancel().catch(() => {});
    }
  }

  /** `what` follows the base address. */
  #failed(what: string, hint = RESUME_HINT): LivesnapError {
    return new LivesnapError('REMOTE_FAILED', `${this.base}${what}`, { hint });
  }
}

const reasonOf = (error: unknown): string =>
  ((error as Error).cause as Error | undefined)?.message ?? (error as Error).message;
