import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'pause',
  operands: ['<machine>'],
  usesStore: false,
  options: {},
  async run({ operands, output }) {
    const { findMachine } = await import('../server/client.js');
    const machine = await (await findMachine(operands[0]!)).pause();
    output.result(machine, () => `${machine.name} is ${machine.state}`);
    return 0;
  },
});
