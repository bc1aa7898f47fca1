/** The verbs that change the state of a machine with one request. */
import { defineVerb, type Verb } from './verb.js';

export const stateVerb = (name: 'pause' | 'resume'): Verb =>
  defineVerb({
    name,
    operands: ['<machine>'],
    usesStore: false,
    options: {},
    async run({ operands, output }) {
      const { findMachine } = await import('../host/find-machine.js');
      const machine = await findMachine(operands[0]!);
      const state = await machine[name]();
      output.result({ name: machine.name, state }, () => `${machine.name} is ${state}`);
      return 0;
    },
  });
