import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { defineVerb, flag } from './verb.js';

/** What the server answers to a wish for a code with a page. */
interface Opening {
  readonly secret: string;
  readonly url: string;
  readonly file: string;
}

export const verb = defineVerb({
  name: 'open',
  operands: [],
  usesStore: false,
  options: {
    print: flag('--print', 'Print the address instead of opening a browser'),
  },
  notes: [
    "Opens the page of this user's running server and signs the browser in. That",
    'works once, within 60 seconds. Without a display, the address is printed.',
    'To use it from elsewhere, forward the port: ssh -L 7070:127.0.0.1:7070 HOST.',
  ].join('\n'),
  async run({ options, output }) {
    const { serverSocket } = await import('../server/listen.js');
    const { askServer } = await import('../server/local-client.js');
    const { secret, url, file } = await askServer<Opening>(serverSocket(runRoot()), 'POST', '/v1/codes', {
      page: true,
    });
    const address = `${url}/#code=${secret}`;
    const { DISPLAY, WAYLAND_DISPLAY } = process.env;
    const hasDisplay = Boolean(DISPLAY || WAYLAND_DISPLAY);
    if (options.print || !hasDisplay || !(await browse(file))) {
      output.result({ address }, () => address);
      output.remark('The address works once, within 60 seconds.');
    } else output.result({ url }, () => `Opened ${url} in the browser`);
    return 0;
  },
});

/** Opens a file in the user's browser. False: there is no program that does. The name of the file tells no secret. */
async function browse(file: string): Promise<boolean> {
  const { spawn } = await import('node:child_process');
  const child = spawn('xdg-open', [file], { stdio: 'ignore', detached: true });
  child.unref();
  return new Promise((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve(false);
      else
        reject(
          new LivesnapError('SYSTEM', `xdg-open cannot be started: ${error.message}`, {
            hint: 'Use livesnap open --print.',
            cause: error,
          }),
        );
    });
    child.once('exit', (status) => resolve(status === 0));
    child.once('spawn', () => setTimeout(resolve, 2000, true).unref());
  });
}
