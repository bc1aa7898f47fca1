/** A script in place of ssh, for tests of copies over ssh. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onDrop, scratchDir } from './scratch.js';

const MAIN = fileURLToPath(new URL('../../bin/livesnap.js', import.meta.url));

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
