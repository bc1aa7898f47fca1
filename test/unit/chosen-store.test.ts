import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chosenStore, namedStore } from '../../src/chosen-store.js';

describe('the chosen store', () => {
  let dir: string;
  let before: NodeJS.ProcessEnv;
  beforeEach(() => {
    before = { ...process.env };
    dir = mkdtempSync(join(tmpdir(), 'livesnap-chosen-'));
    Object.assign(process.env, { XDG_CONFIG_HOME: dir, XDG_DATA_HOME: join(dir, 'data') });
    delete process.env.LIVESNAP_STORE;
  });
  afterEach(() => {
    for (const name of ['XDG_CONFIG_HOME', 'XDG_DATA_HOME', 'LIVESNAP_STORE'])
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    rmSync(dir, { recursive: true, force: true });
  });

  it('is that of the caller, the environment, the config file or the default, in this order', () => {
    assert.deepEqual(chosenStore(undefined), { dir: join(dir, 'data/livesnap'), from: 'default' });
    assert.equal(namedStore(undefined), null);
    mkdirSync(join(dir, 'livesnap'));
    writeFileSync(join(dir, 'livesnap/config.json'), '{"store":"/configured"}');
    assert.deepEqual(chosenStore(undefined), { dir: '/configured', from: 'config' });
    assert.equal(namedStore(undefined), null, 'a default names no store');
    process.env.LIVESNAP_STORE = '';
    assert.equal(chosenStore(undefined).from, 'config');
    process.env.LIVESNAP_STORE = 'set';
    assert.deepEqual(chosenStore(undefined), { dir: 'set', from: 'environment' });
    assert.deepEqual(chosenStore('given'), { dir: 'given', from: 'caller' });
  });

  it('needs no config file if the caller or the environment names one', () => {
    mkdirSync(join(dir, 'livesnap'));
    writeFileSync(join(dir, 'livesnap/config.json'), 'no JSON');
    assert.throws(() => chosenStore(undefined), /not JSON/);
    assert.equal(chosenStore('given').dir, 'given');
    process.env.LIVESNAP_STORE = '/set';
    assert.equal(chosenStore(undefined).dir, '/set');
  });
});
