import assert from 'node:assert/strict';
import { isLoopback, loopbackOrigins, wrongOrigin } from '../../../src/machine/origin.js';
import { publicOrigin } from '../../../src/server/origin.js';

describe('the names of a server', () => {
  const origins = loopbackOrigins(7070);
  const isAllowed = (host: string | undefined, origin?: string): boolean =>
    wrongOrigin({ host, ...(origin === undefined ? {} : { origin }) }, origins) === null;

  it('are those of loopback, with its port', () => {
    for (const host of ['127.0.0.1:7070', 'localhost:7070', 'LOCALHOST:7070', '[::1]:7070'])
      assert.ok(isAllowed(host), host);
    for (const host of [
      undefined,
      '',
      '127.0.0.1',
      'localhost:7071',
      'evil.example:7070',
      '127.0.0.1.evil.example:7070',
    ])
      assert.ok(!isAllowed(host), host);
  });

  it('are those of the pages that may send requests', () => {
    assert.ok(isAllowed('localhost:7070', 'http://localhost:7070'));
    for (const origin of ['null', 'https://localhost:7070', 'http://localhost', 'http://evil.example', ''])
      assert.ok(!isAllowed('localhost:7070', origin), origin);
  });

  it('may be without a port where that is the default', () => {
    const names = new Set(['https://vms.example.org']);
    assert.equal(wrongOrigin({ host: 'vms.example.org', origin: 'https://vms.example.org' }, names), null);
    assert.equal(wrongOrigin({ host: 'vms.example.org:443' }, names), null);
    assert.notEqual(wrongOrigin({ host: 'vms.example.org:80' }, names), null);
    assert.notEqual(wrongOrigin({ host: 'vms.example.org', origin: 'http://vms.example.org' }, names), null);
  });

  it('include that of a proxy, an https address without a path', () => {
    assert.equal(publicOrigin('https://vms.example.org/'), 'https://vms.example.org');
    assert.equal(publicOrigin('https://vms.example.org:8443'), 'https://vms.example.org:8443');
    for (const url of [
      'http://vms.example.org',
      'https://a@vms.example.org',
      'https://vms.example.org/x',
      'vms',
      '',
    ])
      assert.throws(() => publicOrigin(url), { code: 'USAGE' }, url);
  });

  it('tell loopback from other addresses', () => {
    for (const address of ['127.0.0.1', '127.9.9.9', '::1', 'localhost'])
      assert.ok(isLoopback(address), address);
    for (const address of [
      '0.0.0.0',
      '::',
      '10.0.0.1',
      'localhost.example.org',
      '128.0.0.1',
      '127.0.0.1.example.org',
    ])
      assert.ok(!isLoopback(address), address);
  });
});
