/** The registry of address schemes. To add one, see CONTRIBUTING.md, "A remote". */
import { LivesnapError } from '../../errors.js';
import { http, https } from './http.js';
import type { CopyTask, Remote, Scheme } from './remote.js';
import { ssh } from './ssh.js';

export const SCHEMES: Readonly<Record<string, Scheme>> = {
  ssh,
  http,
  https,
};

/** Errors: USAGE. */
export function openRemote(scheme: string, address: string, direction: CopyTask['direction']): Remote {
  const known = Object.hasOwn(SCHEMES, scheme) ? SCHEMES[scheme] : undefined;
  if (!known)
    throw new LivesnapError('USAGE', `unsupported address scheme ${scheme}://`, {
      hint: `Use a directory or ${examples(true)}; to copy from a web server, ${examples(false)}.`,
    });
  if (direction === 'to' && !known.receives)
    throw new LivesnapError('USAGE', `cannot copy to ${scheme}:// addresses`, {
      hint: `Copy to a directory or ${examples(true)}.`,
    });
  return known.open(address);
}

const examples = (receives: boolean): string =>
  Object.values(SCHEMES)
    .filter((scheme) => scheme.receives === receives)
    .map(({ example }) => example)
    .join(' or ');
