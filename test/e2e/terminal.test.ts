/** Progress bars on a terminal: what is left of them when the command is interrupted. */
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
      // It ended meanwhile, or is not ours.
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

  /** Runs `put` of an input without end on a terminal of its own, until its bar is shown. */
  async function showBar() {
    const command = `sleep 1000 | exec "${process.execPath}" "${MAIN}" put -`;
    const terminal = spawn('script', ['-qefc', command, '/dev/null'], { env: world.env, cwd: world.dir });
    const ended = ending(terminal);
    await hearing(terminal, 'stdout', /storing/);
    return { terminal, ended };
  }

  /** That the modes of the terminal are as they were: the cursor is shown, and lines wrap. */
  function assertModes(shown: string): void {
    for (const mode of ['25', '7'])
      assert.ok(
        shown.lastIndexOf(`\x1b[?${mode}l`) <= shown.lastIndexOf(`\x1b[?${mode}h`),
        `mode ${mode} is left off: ${JSON.stringify(shown)}`,
      );
  }

  it('that Ctrl-C ends leaves the terminal as it was, and the status of a signal', async () => {
    const { terminal, ended } = await showBar();
    terminal.stdin.write('\x03');
    const { status, stdout } = await ended;
    assert.equal(status, 128 + 2);
    assertModes(stdout);
  });

  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
    it(`that ${signal} ends leaves the terminal as it was`, async () => {
      const { terminal, ended } = await showBar();
      process.kill(commandIn(world.dir), signal);
      terminal.stdin.write('\x03'); // ends the input
      assertModes((await ended).stdout);
    });
  }
});
