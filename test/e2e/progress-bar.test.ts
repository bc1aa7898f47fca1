/** Progress bars on a terminal, and the terminal's modes after an interrupted command. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { ending, hearing, MAIN, World } from './cli.js';

/** The process whose working directory is `dir` and that runs the command line. */
function commandIn(dir: string): number {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [program = '', main] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (readlinkSync(`/proc/${pid}/cwd`) === dir && program === process.execPath && main === MAIN)
        return Number(pid);
    } catch {
      // It ended meanwhile, or belongs to another user.
    }
  }
  throw new Error(`no command line runs in ${dir}`);
}

describe('a progress bar', () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  /** Runs `put` with an endless input on a new terminal, until its bar is shown. */
  async function showBar() {
    const command = `sleep 1000 | exec "${process.execPath}" "${MAIN}" put -`;
    const terminal = spawn('script', ['-qefc', command, '/dev/null'], { env: world.env, cwd: world.dir });
    const ended = ending(terminal);
    await hearing(terminal, 'stdout', /storing/);
    return { terminal, ended };
  }

  /** Asserts that the cursor is shown and that lines wrap. */
  function assertModes(shown: string): void {
    for (const mode of ['25', '7'])
      assert.ok(
        shown.lastIndexOf(`\x1b[?${mode}l`) <= shown.lastIndexOf(`\x1b[?${mode}h`),
        `mode ${mode} is left off: ${JSON.stringify(shown)}`,
      );
  }

  it('leaves the terminal unchanged at Ctrl-C, with the exit status of a signal', async () => {
    const { terminal, ended } = await showBar();
    terminal.stdin.write('\x03');
    const { status, stdout } = await ended;
    assert.equal(status, 128 + 2);
    assertModes(stdout);
  });

  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
    it(`leaves the terminal unchanged at ${signal}`, async () => {
      const { terminal, ended } = await showBar();
      process.kill(commandIn(world.dir), signal);
      terminal.stdin.write('\x03'); // ends the input
      assertModes((await ended).stdout);
    });
  }
});
