/** The options of every verb. Those of {@link commonOptions} may stand before the verb or after it. */
import { parseText } from './values.js';
import { flag, hidden, type OptionSpec, type Verb, valued } from './verb.js';

const DEFAULT_STORE = 'that of the config file, else ~/.local/share/livesnap';

/** Without a verb: those of the program. */
export function commonOptions({
  usesStore = true,
  defaultStore = DEFAULT_STORE,
}: Pick<Verb, 'defaultStore'> & { readonly usesStore?: boolean } = {}): readonly OptionSpec<unknown>[] {
  const store = valued(
    '--store <dir>',
    `Store directory (default: $LIVESNAP_STORE, else ${defaultStore})`,
    parseText,
  );
  return [
    usesStore ? store : hidden(store),
    flag('--json', 'Print the result or the error as JSON'),
    flag('-q, --quiet', 'Suppress messages and progress'),
  ];
}

export const HELP_OPTION = flag('-h, --help', 'Show this help');
export const VERSION_OPTION = flag('-V, --version', 'Show the version');
