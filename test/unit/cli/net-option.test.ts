import assert from 'node:assert/strict';
import { parseConnection, parseNet } from '../../../src/cli/net-option.js';
import { LivesnapError } from '../../../src/errors.js';
import { backendText } from '../../../src/vmm/net/net-config.js';

const refused = (text: string, message: RegExp, parse: (text: string) => unknown = parseNet): void => {
  assert.throws(
    () => parse(text),
    (error) =>
      error instanceof LivesnapError &&
      error.code === 'USAGE' &&
      message.test(error.message) &&
      error.hint !== undefined,
    text,
  );
};

describe('--net', () => {
  it('is a tap, with a namespace, an address to be made with, and a MAC address', () => {
    assert.deepEqual(parseNet('tap=tap0'), {
      backend: { kind: 'tap', tap: 'tap0', netns: null, create: false, address: null },
      mac: null,
    });
    assert.deepEqual(parseNet('mac=02-00-00-00-00-AB,create,ip=fd00::1/64,netns=blue,tap=t'), {
      backend: { kind: 'tap', tap: 't', netns: 'blue', create: true, address: 'fd00::1/64' },
      mac: '02:00:00:00:00:ab',
    });
  });

  it('is a user network with forwarded ports', () => {
    const { backend } = parseNet('user,forward=8080:80,forward=127.0.0.1:2222:22');
    assert.deepEqual(backend, {
      kind: 'user',
      forwards: [
        { address: null, hostPort: 8080, guestPort: 80 },
        { address: '127.0.0.1', hostPort: 2222, guestPort: 22 },
      ],
    });
  });

  it('is shown as it was written', () => {
    for (const text of [
      'user',
      'user,forward=8080:80,forward=127.0.0.1:2222:22',
      'tap=t,netns=b,create,ip=10.0.0.1/8',
    ])
      assert.equal(backendText(parseNet(text).backend), text);
  });

  it('refuses what is wrong in one sentence', () => {
    refused('', /is no part of a network/);
    refused('tap', /"tap" is no part/);
    refused('tap=', /not a name of an interface/);
    refused('tap=a/b', /not a name of an interface/);
    refused('tap=..', /not a name of an interface/);
    refused('tap=sixteen-letters-', /not a name of an interface/);
    refused('user,tap=t', /neither user nor tap=TAP/);
    refused('mac=02:00:00:00:00:01', /neither user nor tap=TAP/);
    refused('user,create', /parts of a tap/);
    refused('tap=t,forward=1:2', /part of a user network/);
    refused('tap=t,ip=10.0.0.1/24', /for a tap that livesnap makes/);
    for (const mac of ['', '01:00:00:00:00:01', '02:00:00:00:00', '00:00:00:00:00:00', 'g2:00:00:00:00:01'])
      refused(`user,mac=${mac}`, /not a MAC address of one station/);
    for (const ip of ['10.0.0.1', '10.0.0/24', '10.0.0.1/33', 'fd00::1/129', '10.0.0.1/-1', '10.0.0.1/1/2'])
      refused(`tap=t,create,ip=${ip}`, /not an address with a prefix/);
    for (const forward of ['', '80', '0:80', '80:65536', 'a:b', '1.2.3:80:80', '::1:80:80', '1:2:3:4'])
      refused(`user,forward=${forward}`, /not HOST:GUEST/);
    refused('user,forward=80:1,forward=80:2', /port 80 is forwarded twice/);
    refused('tap=t,netns=a b', /not a network namespace/);
    refused('tap=t,netns=..', /not a network namespace/);
  });

  it('names a network of a restored machine by its number', () => {
    assert.deepEqual(parseConnection('1:user'), { index: 1, backend: { kind: 'user', forwards: [] } });
    assert.deepEqual(parseConnection('net0:none'), { index: 0, backend: null });
    refused('user', /does not name a network/, parseConnection);
    refused('16:user', /does not name a network/, parseConnection);
    refused('0:user,mac=02:00:00:00:00:01', /keeps its MAC address/, parseConnection);
  });
});
