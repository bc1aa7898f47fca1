/** Clients that stop in the middle of a transfer. The times are short here; no test asserts on them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { endIfNotTaken, endUnread, unlessStalled } from '../../../src/server/stalled.js';

describe('a client that stalls', () => {
  let server: Server;
  let client: Socket;

  afterEach(async () => {
    client.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  /** Resolves when the server has the request, of which `text` is the beginning. */
  async function asked(text: string): Promise<[IncomingMessage, ServerResponse]> {
    server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.on('error', () => {});
    client.write(text);
    return (await once(server, 'request')) as [IncomingMessage, ServerResponse];
  }

  const upload = 'POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n';
  const part = (bytes: number): string => `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`;

  it('does not keep an answer that it does not take', async () => {
    const [, response] = await asked('GET / HTTP/1.1\r\nhost: h\r\n\r\n');
    client.pause();
    endIfNotTaken(response, 20);
    const closed = once(response, 'close');
    // The system takes some megabytes before the client does.
    const fill = (): void => {
      while (response.write(Buffer.alloc(1 << 20)));
    };
    response.on('drain', fill);
    fill();
    await closed;
    assert(response.destroyed && !response.writableFinished);
  });

  it('does not keep an upload that brings nothing, or next to nothing', async () => {
    for (const isSilent of [true, false]) {
      const [request] = await asked(upload + part(10));
      const timer = setInterval(() => client.write(isSilent ? '' : part(1)), 5);
      const parts = unlessStalled(request, 40);
      await assert.rejects(
        async () => {
          for await (const _ of parts);
        },
        { status: 408 },
      );
      clearInterval(timer);
      if (isSilent) {
        client.destroy();
        server.close();
      }
    }
  });

  it('is no fault of the server when it hangs up', async () => {
    const [request] = await asked(upload + part(10));
    const parts = unlessStalled(request);
    await parts.next();
    client.destroy();
    await assert.rejects(parts.next(), { status: 400 });
  });

  it('brings its upload while the server is slow to read it', async () => {
    const [request] = await asked(upload + part(50_000) + part(50_000));
    const parts = unlessStalled(request, 5);
    assert((await parts.next()).value!.length > 0);
    while (request.readableLength === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert(!request.destroyed);
    await parts.return(undefined);
    assert(!request.destroyed, 'the rest is left');
  });

  it('does not send the rest of a body for ever when it has its answer', async () => {
    const [request, response] = await asked(upload + part(10));
    const timer = setInterval(() => client.write(part(1000)), 5);
    const answered = once(client, 'data');
    response.end('no');
    endUnread(request, 50);
    assert.match(String(await answered), /^HTTP\/1.1 200/);
    await once(client, 'close');
    clearInterval(timer);
  });

  it('keeps its connection when the body was whole', async () => {
    const [request, response] = await asked(`${upload}${part(10)}0\r\n\r\n`);
    request.resume();
    await once(request, 'end');
    response.end('yes');
    endUnread(request, 1);
    await once(client, 'data');
    const next = once(server, 'request');
    client.write('GET /2 HTTP/1.1\r\nhost: h\r\n\r\n');
    assert.equal(((await next) as [IncomingMessage])[0].url, '/2');
  });
});
