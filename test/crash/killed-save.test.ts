/** Kills children at a random moment of a save: committed snapshots stay, and gc reclaims the rest. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dropScratch, load, newStore, noise, save, textPages } from '../store/scratch.js';

const savingChild = fileURLToPath(new URL('../store/saving-child.js', import.meta.url));

describe('a process killed during a save', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('leaves a complete snapshot or none, and gc reclaims the rest', async function () {
    const { store, dir } = newStore(this);
    const kept = { 'ram@0x0': Buffer.concat([noise(1, 500), textPages(2, 500)]) };
    await save(store, kept, { tag: 'kept' });
    for (let round = 0; round < 12; round++) {
      const child = spawn(process.execPath, [savingChild, dir, String(round)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout!, 'data'); // it prints a line before it saves
      await new Promise((resolve) => setTimeout(resolve, randomInt(0, 120)));
      child.kill('SIGKILL');
      await once(child, 'exit');
      for (const { id, vm } of store.list())
        if (vm !== 'a')
          assert.deepEqual((await load(store, id))['ram@0x0'], noise(1000 + Number(vm), 3000), vm!);
      assert.deepEqual(await load(store, 'kept'), kept);
    }
    await store.gc({ dryRun: false });
    const { ok, problems } = await store.check({ readData: true });
    assert.ok(ok, JSON.stringify(problems));
    assert.equal(store.stats().deadBytes, 0);
    const known = new Set(store.list().map(({ id }) => id));
    assert.deepEqual(new Set(readdirSync(join(dir, 'snapshots'))), known);
  });
});
