/** put and get through pipes. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { noise } from '../store/scratch.js';
import { MAIN, World } from './cli.js';
import { writeFile } from './stored-files.js';

describe('livesnap put and get', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('work with pipes: put from stdin, get to stdout', async () => {
    const bytes = Buffer.concat([noise(1, 700), Buffer.from('a short end')]);
    const path = writeFile(world, 'x', bytes);
    const shell = (script: string): Buffer =>
      execFileSync('bash', ['-o', 'pipefail', '-c', script, process.execPath, MAIN, path], {
        env: world.env,
        maxBuffer: 1 << 26,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    shell('cat "$2" | "$0" "$1" put - --tag piped --name from-a-pipe');
    assert.equal((await world.json<{ vm: string }[]>('ls'))[0]!.vm, 'from-a-pipe');
    assert.deepEqual(shell('"$0" "$1" get piped -'), bytes);
    assert.deepEqual(shell('"$0" "$1" get piped - | head -c 5000 || true'), bytes.subarray(0, 5000));
    const both = await world.run(['get', 'piped', '-', '--json']);
    assert.equal(both.status, 2);
  });
});
