import { stateFile } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { installedVersion } from '../native/project-root.js';
import { parseListen, parseRemote, parseText } from './values.js';
import { defineVerb, repeated, valued } from './verb.js';

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
    remote: repeated(
      '--remote <name>=<address>',
      'Requests may copy to and from this store; repeatable',
      parseRemote,
    ),
    allow: repeated('--allow <dir>', 'Requests may name kernels below DIR; may be repeated', parseText),
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
    const { loadHostServer } = await import('../server/load-host-server.js');
    const { serve } = loadHostServer();
    const tokenFile = options.tokenFile ?? stateFile('token');
    const server = await serve({
      storeDir,
      version: installedVersion(),
      tokenFile,
      remotes: new Map(options.remote),
      allow: options.allow,
      listen: options.listen === 'none' ? null : (options.listen ?? DEFAULT_ADDRESS),
      tls: tlsCert !== undefined && tlsKey !== undefined ? { cert: tlsCert, key: tlsKey } : null,
      publicUrl: options.publicUrl ?? null,
    });
    const { socket, url } = server;
    output.result({ socket, url, tokenFile }, () =>
      [`Socket: ${socket}`, ...(url === null ? [] : [`URL: ${url}`, `Token: in ${tokenFile}`])].join('\n'),
    );
    output.remark('The server runs until Ctrl-C. Machines keep running after that.');
    await new Promise<void>((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
    });
    await server.close();
    return 0;
  },
});
