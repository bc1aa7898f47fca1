import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'pause',
  operands: ['<machine>'],
  usesStore: false,
  options: {},
  async run({ operands, output }) {
    const { findMachine } = await import('../host/find-machine.js');
    const machine = await findMachine(operands[0]!);
    const state = await machine.pause();
    output.result({ name: machine.name, state }, () => `${machine.name} is ${state}`);
    return 0;
  },
});
