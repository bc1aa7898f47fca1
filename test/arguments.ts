/** The arguments of programs for developers, such as `npm run crash` and `npm run bench`. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** As `parseArgs`. Wrong arguments end the process with status 2 and one line that lists the options. */
export function argumentsOf<T extends ParseArgsConfig>(
  program: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!code?.startsWith('ERR_PARSE_ARGS_')) throw error;
    const options = Object.keys(config.options ?? {}).map((name) => `--${name}`);
    console.error(`${program}: ${message.split('. ')[0]}; the options are ${options.join(' ')}`);
    process.exit(2);
  }
}
