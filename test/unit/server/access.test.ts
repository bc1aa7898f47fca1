import assert from 'node:assert/strict';
import { newSecret } from '../../../src/secret.js';
import { Access, CODE_LIFETIME_MS, SESSION_LIFETIME_MS } from '../../../src/server/access.js';

describe('access to the API of a host', () => {
  let nowMs = 0;
  const token = newSecret();
  const access = new Access(token, () => nowMs);
  const bearer = (secret: string): string => `Bearer ${secret}`;
  beforeEach(() => {
    nowMs = 1_000_000;
  });

  it('is given by the token, and by nothing like it', () => {
    assert.equal(access.callerOf(bearer(token)), 'token');
    for (const wrong of [
      undefined,
      '',
      token,
      bearer(''),
      bearer(`${token}x`),
      bearer(token.slice(1)),
      `Basic ${token}`,
    ])
      assert.equal(access.callerOf(wrong), null);
  });

  it('is given by a session, which a code is traded for once', () => {
    const { secret: code } = access.newCode();
    const session = access.newSession(code)!;
    assert.equal(access.callerOf(bearer(session.secret)), 'session');
    assert.equal(access.newSession(code), null, 'a code that was used');
    assert.equal(session.expiresAt, new Date(nowMs + SESSION_LIFETIME_MS).toISOString());
  });

  it('ends for codes after a minute, and for sessions after twelve hours', () => {
    const { secret: code } = access.newCode();
    const { secret: session } = access.newSession(access.newCode().secret)!;
    nowMs += CODE_LIFETIME_MS;
    assert.equal(access.newSession(code), null);
    nowMs += SESSION_LIFETIME_MS - CODE_LIFETIME_MS - 1;
    assert.equal(access.callerOf(bearer(session)), 'session');
    nowMs += 1;
    assert.equal(access.callerOf(bearer(session)), null);
  });

  it('outlives the server for sessions, but not another token', () => {
    const { secret: session } = access.newSession(access.newCode().secret)!;
    assert.equal(new Access(token, () => nowMs).callerOf(bearer(session)), 'session');
    assert.equal(new Access(newSecret(), () => nowMs).callerOf(bearer(session)), null);
  });

  it('is not given by a session that was changed', () => {
    const { secret: session } = access.newSession(access.newCode().secret)!;
    const [version, ends, nonce, signature] = session.split('.');
    const later = (Number.parseInt(ends!, 36) + 1).toString(36);
    for (const changed of [
      [version, later, nonce, signature],
      [version, ends, `A${nonce!.slice(1)}`, `A${signature!.slice(1)}`],
      ['s2', ends, nonce, signature],
      [version, ends, nonce, ''],
    ])
      assert.equal(access.callerOf(bearer(changed.join('.'))), null);
  });

  it('is given by a ticket once, and for its path alone', () => {
    const path = '/v1/snapshots/a/export';
    const { secret } = access.newTicket(path);
    assert.equal(access.useTicket(secret, path), true);
    assert.equal(access.useTicket(secret, path), false, 'used');
    const { secret: other } = access.newTicket(path);
    assert.equal(access.useTicket(other, '/v1/snapshots/b/export'), false);
    assert.equal(access.useTicket(other, path), false, 'used for a wrong path');
    assert.equal(access.newSession(access.newTicket('code').secret), null, 'a ticket is no code');
  });

  it('keeps a bounded number of codes, the newest ones', () => {
    const first = access.newCode().secret;
    const codes = Array.from({ length: 300 }, () => access.newCode().secret);
    assert.equal(access.newSession(first), null);
    assert.ok(access.newSession(codes.at(-1)!));
    assert.ok(access.newSession(codes.at(-200)!));
  });
});
