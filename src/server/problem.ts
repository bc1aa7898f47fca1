/** Errors as answers: problem details (RFC 9457), with the code and the hint of livesnap's errors. */
import { STATUS_CODES } from 'node:http';
import { Type } from 'typebox';
import { asLivesnapError } from '../errors.js';
import { HttpError, httpStatusOf } from '../machine/http-status.js';

export const PROBLEM_TYPE = 'application/problem+json';

export const Problem = Type.Object(
  {
    type: Type.Literal('about:blank'),
    title: Type.String({ description: 'The reason phrase of the status.' }),
    status: Type.Integer(),
    detail: Type.String({ description: 'What happened.' }),
    code: Type.String({ description: 'A code of docs/errors.md.' }),
    hint: Type.Union([Type.String(), Type.Null()], { description: 'What to do.' }),
  },
  { $id: 'Problem' },
);

export interface ProblemDetails {
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly hint: string | null;
}

/** What fastify itself raises: a body that is too long, not JSON, or does not match its schema. */
interface FastifyFault {
  readonly statusCode?: number;
  readonly code?: string;
  readonly validation?: readonly {
    instancePath: string;
    message?: string;
    params: Record<string, unknown>;
  }[];
  readonly validationContext?: string;
}

export function problemOf(thrown: unknown): ProblemDetails {
  const error = asLivesnapError(refusalOf(thrown as FastifyFault) ?? thrown);
  const status = httpStatusOf(error);
  return {
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail: error.message,
    code: error.code,
    hint: error.hint ?? null,
  };
}

/** What a reader calls the parts of a request that Fastify checks. */
const PARTS: Readonly<Record<string, string>> = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'headers',
};

function refusalOf({ statusCode, code, validation, validationContext }: FastifyFault): HttpError | null {
  const [first] = validation ?? [];
  if (first !== undefined) {
    const part = PARTS[validationContext ?? ''] ?? 'request';
    const field = first.instancePath.replaceAll('/', '.').slice(1);
    const extra = first.params.additionalProperty;
    const subject = field === '' ? `the ${part}` : `the field ${field} of the ${part}`;
    const problem =
      typeof extra === 'string'
        ? `has an unknown field ${JSON.stringify(extra.slice(0, 40))}`
        : (first.message ?? 'is not valid');
    return new HttpError(400, `${subject} ${problem}`, 'GET /openapi.json describes all requests.');
  }
  if (statusCode === 413) return new HttpError(413, 'the body of the request is too long');
  if (statusCode === 415)
    return new HttpError(
      415,
      'the body of the request has an unknown type',
      'Send the header Content-Type: application/json, or application/x-tar with an archive.',
    );
  if (statusCode === 400 && code?.startsWith('FST_'))
    return new HttpError(
      400,
      'the body of the request is not JSON',
      'GET /openapi.json describes all requests.',
    );
  return statusCode === 400 ? new HttpError(400, 'the request is not valid') : null;
}
