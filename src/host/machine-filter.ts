/** Which machines of a list are shown. Pure. */
import { matchesGlob } from '../glob.js';
import {
  type FilterForms,
  hasLabel,
  type LabelFilter,
  parseFilterOf,
  parseLabelFilter,
  passesAll,
  patternForm,
} from './filters.js';
import type { MachineInfo } from './machine-info.js';

export type MachineCondition =
  | LabelFilter
  | { readonly key: 'name'; readonly pattern: string }
  | { readonly key: 'state'; readonly state: MachineInfo['state'] };

const STATES: readonly string[] = Object.keys({
  running: true,
  paused: true,
  stopped: true,
  starting: true,
  unresponsive: true,
  failed: true,
  gone: true,
} satisfies Record<MachineInfo['state'], true>);

const FORMS: FilterForms<MachineCondition> = {
  label: { form: 'label=KEY or label=KEY=VALUE', parse: parseLabelFilter },
  name: patternForm('name'),
  state: {
    form: `state=STATE, where STATE is ${STATES.join(', ').replace(/, (?=[^,]*$)/, ' or ')}`,
    parse: (state) =>
      STATES.includes(state ?? '') ? { key: 'state', state: state as MachineInfo['state'] } : null,
  },
};

/** Errors: USAGE. */
export const parseMachineFilter = (text: string): MachineCondition => parseFilterOf(FORMS, text);

/** The machines that pass, in the same order. */
export function chooseMachines(
  all: readonly MachineInfo[],
  filters: readonly MachineCondition[],
): MachineInfo[] {
  return all.filter(({ name, labels, state }) =>
    passesAll(filters, (filter) => {
      switch (filter.key) {
        case 'label':
          return hasLabel(labels, filter);
        case 'name':
          return matchesGlob(filter.pattern, name);
        case 'state':
          return state === filter.state;
      }
    }),
  );
}
