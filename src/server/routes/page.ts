/**
 * The page: `/` and the files below `/app/`. It needs no caller, because it has no secrets. What it shows, it asks for
 * with the session of its tab.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { PageFile } from '../page-files.js';
import type { App, Service } from '../service.js';

/**
 * Scripts and connections are the server's own, and nobody may frame the page. Styles may be inline, because the terminal
 * makes its own.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** The names of files below /app/ have the hash of their content. */
const FOR_EVER = 'public, max-age=31536000, immutable';

export function pageRoutes(app: App, { page }: Service): void {
  for (const [path, file] of page)
    app.get(path, { config: { isPublic: true }, schema: { hide: true } }, (request, reply) =>
      answer(request, reply, file, path === '/' ? 'no-cache' : FOR_EVER),
    );
}

function answer(
  request: FastifyRequest,
  reply: Pick<FastifyReply, 'headers' | 'code' | 'send'>,
  { bytes, type, etag }: PageFile,
  cacheControl: string,
): unknown {
  reply.headers({
    'content-type': type,
    'content-security-policy': POLICY,
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-frame-options': 'DENY',
    'cache-control': cacheControl,
    etag,
  });
  return request.headers['if-none-match'] === etag ? reply.code(304).send() : reply.send(bytes);
}
