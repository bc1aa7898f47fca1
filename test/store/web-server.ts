/** A web server for tests of copies over http. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { onDrop } from './scratch.js';

/** A web server for the files of a directory. `spoil` returns true when it has answered in its place. */
export async function serve(
  test: Mocha.Context,
  dir: string,
  {
    ranges = true,
    listing = null,
    spoil = () => false,
  }: {
    ranges?: boolean;
    /** The page for a directory with these names. Null: there are no such pages. */
    listing?: ((names: readonly string[]) => string) | null;
    spoil?: (path: string, response: ServerResponse, bytes: Buffer) => boolean;
  } = {},
): Promise<{ address: string; requests: string[] }> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url!, 'http://x').pathname)).slice(1);
    requests.push(`${path} ${request.headers.range ?? ''}`);
    let bytes: Buffer;
    const folder = statSync(join(dir, path), { throwIfNoEntry: false })?.isDirectory();
    if (folder && path.endsWith('/')) {
      if (listing === null) response.writeHead(403).end();
      else response.end(listing(readdirSync(join(dir, path))));
      return;
    }
    try {
      bytes = readFileSync(join(dir, path));
    } catch {
      response.writeHead(404).end();
      return;
    }
    if (spoil(path, response, bytes)) return;
    const match = ranges && /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
    if (!match) {
      response.end(bytes);
      return;
    }
    const from = match[1] === '' ? Math.max(0, bytes.length - Number(match[2])) : Number(match[1]);
    const to = match[1] === '' || match[2] === '' ? bytes.length - 1 : Number(match[2]);
    response.writeHead(206, { 'content-range': `bytes ${from}-${to}/${bytes.length}` });
    response.end(bytes.subarray(from, to + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onDrop(test, () => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, requests };
}
