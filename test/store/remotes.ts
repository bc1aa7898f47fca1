/** Remotes for the copy tests: a web server for the files of a store, and a script in place of ssh. */
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onDrop, scratchDir } from './scratch.js';

const MAIN = fileURLToPath(new URL('../../bin/livesnap.js', import.meta.url));

/** A web server for the files of a directory. `spoil` returns true when it has answered in its place. */
export async function serve(
  test: Mocha.Context,
  dir: string,
  {
    ranges = true,
    spoil = () => false,
  }: { ranges?: boolean; spoil?: (path: string, response: ServerResponse, bytes: Buffer) => boolean } = {},
): Promise<{ address: string; requests: string[] }> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url!, 'http://x').pathname)).slice(1);
    requests.push(`${path} ${request.headers.range ?? ''}`);
    let bytes: Buffer;
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

/** Until the test ends, `ssh` is a script, and the remote command is the livesnap under test. */
export function useSsh(test: Mocha.Context, script: string): void {
  const bin = scratchDir(test);
  writeFileSync(join(bin, 'ssh'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const { PATH, LIVESNAP_REMOTE_COMMAND } = process.env;
  onDrop(test, () => {
    for (const [name, value] of Object.entries({ PATH, LIVESNAP_REMOTE_COMMAND }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  });
  process.env.PATH = `${bin}:${PATH}`;
  process.env.LIVESNAP_REMOTE_COMMAND = `'${process.execPath}' '${MAIN}'`;
}

/** For {@link useSsh}: runs the remote command here. */
export const remoteCommandHere = 'for command; do :; done; exec sh -c "$command"';
