/** How an outer machine ended, with a shell script in place of QEMU. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Ending, findDeath, type Report, runOuterMachine } from './outer-machine.js';

const PANIC = '[   12.345678] Kernel panic - not syncing: corrupted stack end detected inside scheduler';
const FOREVER = 'exec sleep 1000000';

describe('an outer machine', () => {
  let logs: string;
  beforeEach(() => {
    logs = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
  });
  afterEach(() => rmSync(logs, { recursive: true }));

  interface Heard {
    readonly ending: Ending;
    readonly reports: readonly Report[];
    readonly output: string;
  }

  async function run(
    script: string,
    more: { silenceMs?: number; stop?: AbortController } = {},
  ): Promise<Heard> {
    const reports: Report[] = [];
    let output = '';
    const { stop = new AbortController(), ...settings } = more;
    const ending = await runOuterMachine({
      ...{
        dir: logs,
        memoryMib: 1,
        cpus: 1,
        options: {},
        logs,
        name: 'run',
        signal: stop.signal,
        ...settings,
      },
      command: ['sh', '-c', script],
      onReport: (report) => reports.push(report),
      onJobOutput(bytes) {
        output += bytes;
        if (output.includes('stop me')) stop.abort();
      },
    });
    return { ending, reports, output };
  }

  it('is done when its init says so, and is ended then', async () => {
    const { ending, reports } = await run(
      `echo alive >&5; echo begin kvm >&5; echo text >&4; echo failed kvm >&5; echo done >&5; ${FOREVER}`,
    );
    assert.deepEqual(ending, { how: 'done' });
    assert.deepEqual(reports, [
      { what: 'begin', text: 'kvm' },
      { what: 'failed', text: 'kvm' },
    ]);
  });

  it('gives the output of a job before the report that ends it', async () => {
    let sawBoth = false;
    let output = '';
    await runOuterMachine({
      ...{
        dir: logs,
        memoryMib: 1,
        cpus: 1,
        options: {},
        logs,
        name: 'run',
        signal: new AbortController().signal,
      },
      command: [
        'sh',
        '-c',
        `head -c 100000 /dev/zero >&4; echo end >&4; echo passed kvm >&5; echo done >&5; ${FOREVER}`,
      ],
      onReport() {
        sawBoth = output.endsWith('end\n');
      },
      onJobOutput(bytes) {
        output += bytes;
      },
    });
    assert.ok(sawBoth, `${output.length} bytes came before the report`);
  });

  it('has crashed when its kernel says so', async () => {
    const { ending } = await run(`echo alive >&5; echo '${PANIC}' >&3`);
    assert.deepEqual(ending, { how: 'crashed', why: PANIC.replace(/^\[.*\] /, '') });
    assert.equal(readFileSync(join(logs, 'run-kernel.log'), 'utf8'), `${PANIC}\n`);
  });

  it('takes no output of a guest for a crash or a report', async () => {
    const { ending, reports, output } = await run(
      `echo alive >&5; echo '${PANIC}' >&4; echo passed main >&4; echo done >&4; echo failed main >&5; echo done >&5; ${FOREVER}`,
    );
    assert.deepEqual(ending, { how: 'done' });
    assert.deepEqual(reports, [{ what: 'failed', text: 'main' }]);
    assert.ok(output.includes('passed main'));
  });

  it('has crashed when it resets, or QEMU ends, before the init is done', async () => {
    assert.equal((await run('echo alive >&5')).ending.how, 'crashed');
    assert.deepEqual((await run('echo alive >&5; sleep 0.1; kill -SEGV $$')).ending, {
      how: 'crashed',
      why: 'QEMU ended with SIGSEGV',
    });
  });

  it('has crashed when nothing is heard of its init', async () => {
    const { ending } = await run(`echo alive >&5; echo noise >&4; ${FOREVER}`, { silenceMs: 300 });
    assert.deepEqual(ending, { how: 'crashed', why: 'it was silent for 0.3 s' });
  });

  it('is unusable when QEMU ends with an error before the init ran', async () => {
    const { ending } = await run('echo no such machine >&2; exit 1');
    assert.deepEqual(ending, { how: 'unusable', why: 'QEMU ended with 1' });
    assert.equal(readFileSync(join(logs, 'run-qemu.log'), 'utf8'), 'no such machine\n');
  });

  it('is ended by its signal', async () => {
    const { ending } = await run(`echo alive >&5; echo stop me >&4; ${FOREVER}`, {
      stop: new AbortController(),
    });
    assert.deepEqual(ending, { how: 'stopped' });
  });

  it('ends with the process that runs it, even if that is killed', async () => {
    const program = `
      const { runOuterMachine } = await import(${JSON.stringify(new URL('./outer-machine.js', import.meta.url).href)});
      await runOuterMachine({ dir: '.', memoryMib: 1, cpus: 1, options: {}, logs: ${JSON.stringify(logs)}, name: 'run',
        signal: new AbortController().signal, command: ['sh', '-c', 'echo pid $$ >&4; ${FOREVER}'],
        onReport() {}, onJobOutput: (bytes) => process.stdout.write(bytes) });`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [bytes] = await once(child.stdout, 'data');
    const pid = /^pid (\d+)/.exec(String(bytes))![1]!;
    const isRunning = () => {
      try {
        return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
      } catch {
        return false;
      }
    };
    assert.ok(existsSync(`/proc/${pid}`));
    child.kill('SIGKILL');
    while (isRunning()) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});

describe('the log of the outer kernel', () => {
  it('is searched for the first line of a death', () => {
    for (const line of [
      'Kernel panic - not syncing: Attempted to kill init!',
      'BUG: TASK stack guard page was hit at 0000000012345678',
      'Oops: 0000 [#1] PREEMPT SMP NOPTI',
      'general protection fault, probably for non-canonical address 0xdead: 0000 [#1]',
      'watchdog: BUG: soft lockup - CPU#0 stuck for 122s! [node:153]',
    ])
      assert.equal(findDeath(`[    1.0] Linux\r\n[  240.263369] ${line}\r\n[  241.0] Rebooting`), line);
  });

  it('may have what KVM says of guests', () => {
    assert.equal(
      findDeath(
        '[ 54.231323] kvm [153]: vcpu0, guest rIP: 0xffffffff81073744 Unhandled WRMSR(0xc0010007) = 0xffff\n',
      ),
      null,
    );
  });
});
