import { LivesnapError } from '../errors.js';
import { installedVersion } from '../native/project-root.js';
import { readSmallFile } from '../small-file.js';
import { MAX_STARTER_BYTES } from '../vmm/console/saved-console.js';
import {
  parseListen,
  parseNamedStore,
  parsePort,
  parsePortRange,
  parseRemote,
  parseSize,
  parseText,
} from './values.js';
import { defineVerb, optional, repeated, valued } from './verb.js';

const ORIGINAL_PORT = 8010;
const MAX_STORES = 16;
const DEFAULT_MAX_IMPORT_BYTES = 64 * 2 ** 30;
const DEFAULT_ADDRESS = { address: '127.0.0.1', port: 7070 };

export const verb = defineVerb({
  name: 'serve',
  operands: [],
  options: {
    listen: valued(
      '--listen <address>',
      'ADDRESS:PORT, or none: only the Unix socket (default: 127.0.0.1:7070)',
      parseListen,
    ),
    tlsCert: valued('--tls-cert <file>', 'Certificate chain as PEM, for HTTPS', parseText),
    tlsKey: valued('--tls-key <file>', 'Key of the certificate as PEM', parseText),
    publicUrl: valued('--public-url <url>', 'https address of a proxy in front of the server', parseText),
    tokenFile: valued(
      '--token-file <file>',
      'File of the token (default: ~/.local/state/livesnap/token)',
      parseText,
    ),
    namedStore: repeated(
      '--named-store <name=dir>',
      'Also serve this store, which requests name; repeatable',
      parseNamedStore,
    ),
    remote: repeated(
      '--remote <name=address>',
      'Requests may copy to and from this store; repeatable',
      parseRemote,
    ),
    maxImport: valued(
      '--max-import <size>',
      'Largest archive that may be uploaded (default: 64G)',
      parseSize,
    ),
    original: optional(
      '--original [port]',
      'Also serve the API of the original program on 127.0.0.1 (default: 8010)',
      parsePort,
    ),
    starterFile: valued('--starter-file <file>', 'For --original: typed into machines that boot', parseText),
    ports: valued(
      '--ports <range>',
      'Ports of 127.0.0.1 that machines may forward: 8000-8099',
      parsePortRange,
    ),
    tap: repeated('--tap <tap>', 'Requests may use this tap of the host; repeatable', parseText),
    allow: repeated(
      '--allow <dir>',
      'Requests may name kernels and disks below DIR; may be repeated',
      parseText,
    ),
  },
  notes: [
    'Serves an API for the machines and the store of this host. Every request over',
    'TCP needs the token, also on loopback, because every user of the host can reach',
    'it. The Unix socket needs none.',
    'Addresses other than loopback need a certificate or --public-url.',
    'Machines keep running when the server ends.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { tlsCert, tlsKey } = options;
    if ((tlsCert === undefined) !== (tlsKey === undefined))
      throw new LivesnapError('USAGE', '--tls-cert and --tls-key belong together', { hint: 'Give both.' });
    const { original, starterFile } = options;
    if (original === undefined && starterFile !== undefined)
      throw new LivesnapError('USAGE', '--starter-file is for --original', {
        hint: 'Add --original.',
      });
    const { loadHostServer } = await import('../server/load-host-server.js');
    const { onNote, serve } = loadHostServer();
    onNote((sentence) => output.note(sentence));
    const { tokenFile: defaultFile } = await import('../token-file.js');
    const tokenFile = options.tokenFile ?? defaultFile();
    const server = await serve({
      storeDir,
      namedStores: namedStores(options.namedStore),
      version: installedVersion(),
      tokenFile,
      remotes: new Map(options.remote),
      taps: new Set(options.tap),
      ports: options.ports ?? null,
      maxImportBytes: options.maxImport ?? DEFAULT_MAX_IMPORT_BYTES,
      allow: options.allow,
      original:
        original === undefined
          ? null
          : {
              port: original === true ? ORIGINAL_PORT : original,
              starter: starterFile === undefined ? null : readStarter(starterFile),
            },
      listen: options.listen === 'none' ? null : (options.listen ?? DEFAULT_ADDRESS),
      tls: tlsCert !== undefined && tlsKey !== undefined ? { cert: tlsCert, key: tlsKey } : null,
      publicUrl: options.publicUrl ?? null,
    });
    const { socket, url, originalUrl } = server;
    output.result({ socket, url, tokenFile, originalUrl }, () =>
      [
        `Socket: ${socket}`,
        ...(url === null ? [] : [`URL: ${url}`, `Token: in ${tokenFile}`]),
        ...(originalUrl === null ? [] : [`Original API: ${originalUrl}`]),
      ].join('\n'),
    );
    if (originalUrl !== null)
      output.say(
        `warning: ${originalUrl} needs no token: every user of this host can start and save machines there`,
      );
    if (url !== null) output.remark('To open its page: livesnap open');
    output.remark('The server runs until Ctrl-C. Machines keep running after that.');
    await new Promise<void>((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
    });
    await server.close();
    return 0;
  },
});

/** Errors: USAGE. */
function namedStores(given: readonly (readonly [string, string])[]): ReadonlyMap<string, string> {
  const stores = new Map(given);
  if (stores.size === given.length && stores.size < MAX_STORES) return stores;
  if (stores.size < given.length)
    throw new LivesnapError('USAGE', '--named-store gives a name twice', {
      hint: 'Give each store another name.',
    });
  throw new LivesnapError('USAGE', `a server has at most ${MAX_STORES} stores`, {
    hint: 'Start another server, as another user, for the others.',
  });
}

/** Read once, at the start. Errors: NO_SUCH_FILE, USAGE. */
function readStarter(path: string): { readonly path: string; readonly bytes: Uint8Array } {
  const text = readSmallFile(
    path,
    MAX_STARTER_BYTES,
    (problem) =>
      new LivesnapError('USAGE', `starter file ${path}: ${problem}`, { hint: 'Give a text file.' }),
  );
  return { path, bytes: Buffer.from(text) };
}
