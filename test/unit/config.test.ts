import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { configFile, readConfig } from '../../src/config.js';
import type { LivesnapError } from '../../src/errors.js';

describe('the config file', () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-config-'));
    file = join(dir, 'config.json');
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const refuses = (content: string | Uint8Array, message: RegExp, hint: RegExp): void => {
    writeFileSync(file, content);
    assert.throws(
      () => readConfig(file),
      (error: LivesnapError) => {
        assert.equal(error.code, 'USAGE');
        assert.ok(error.message.startsWith(`the config file ${file}: `), error.message);
        assert.match(error.message, message);
        assert.match(error.hint!, hint);
        return true;
      },
    );
  };

  it('is in the XDG directory of configurations, else below the home directory', () => {
    assert.equal(configFile({ XDG_CONFIG_HOME: '/c', HOME: '/home/a' }), '/c/livesnap/config.json');
    assert.equal(configFile({ HOME: '/home/a' }), '/home/a/.config/livesnap/config.json');
  });

  it('may be missing', () => {
    assert.deepEqual(readConfig(file), {});
    assert.deepEqual(readConfig(join(file, 'below/config.json')), {});
    assert.deepEqual(readConfig(null), {});
    writeFileSync(file, '');
    assert.deepEqual(readConfig(join(file, 'config.json')), {}, 'a file in the place of a directory');
  });

  it('has any of its keys', () => {
    const config = {
      store: '/srv/store',
      memory: '1G',
      cpus: 2,
      block: ['path=/a,cow', 'snapshot=b'],
      net: ['user'],
    };
    writeFileSync(file, JSON.stringify(config));
    assert.deepEqual(readConfig(file), config);
    writeFileSync(file, '{}');
    assert.deepEqual(readConfig(file), {});
  });

  it('is refused, with its known keys, if a key is unknown', () => {
    for (const key of ['stores', 'Memory', '__proto__'])
      refuses(
        `{"${key}": "1G"}`,
        new RegExp(`"${key}" is not a known field`),
        /store.*memory.*cpus.*block.*net/,
      );
  });

  it('is refused if a value has the wrong type', () => {
    const hint = /^Keys: store/;
    refuses('{"store": "here"}', /store is not an absolute path/, hint);
    refuses('{"store": 1}', /store is not a string/, hint);
    refuses('{"memory": 512}', /memory is not a string/, hint);
    refuses('{"cpus": "2"}', /cpus is not an integer/, hint);
    refuses('{"cpus": 0}', /cpus is not an integer/, hint);
    refuses('{"block": "path=/a"}', /block is not a list/, hint);
    refuses('{"net": [1]}', /net\[0\] is not a string/, hint);
    refuses('[]', /the value is not an object/, hint);
  });

  it('is refused if it is no JSON, too large or no regular file', () => {
    refuses('', /it is not JSON/, /Example/);
    refuses('{"memory": "1G",}', /it is not JSON/, /Example/);
    refuses(new Uint8Array(100_000).fill(0x20), /larger than 65536 bytes/, /Keys/);
    mkdirSync(join(dir, 'directory'));
    assert.throws(() => readConfig(join(dir, 'directory')), /it is not a regular file/);
  });
});
