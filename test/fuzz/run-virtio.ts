/**
 * Mutates what a guest says to virtio devices (docs/testing.md):
 *
 *     npm run fuzz:virtio -- [--seed S] [--mutations N] [--device NAME]
 *
 * A failure names its device, seed and mutation. The same seed repeats it.
 */
import { randomInt } from 'node:crypto';
import { argumentsOf } from '../arguments.js';
import { SUBJECTS } from '../contract/virtio/subjects.js';
import { VirtioFuzzer } from './virtio-fuzzer.js';

const { values } = argumentsOf('fuzz:virtio', {
  options: {
    seed: { type: 'string' },
    mutations: { type: 'string', default: '1000000' },
    device: { type: 'string' },
  },
});

function usageError(message: string): never {
  console.error(`fuzz:virtio: ${message}`);
  process.exit(2);
}

function number(text: string, what: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) usageError(`${what} "${text}" is not a whole number`);
  return value;
}

const seed = values.seed === undefined ? randomInt(2 ** 31) : number(values.seed, 'the seed');
const mutations = number(values.mutations, 'the number of mutations');
const subjects = SUBJECTS.filter(({ name }) => values.device === undefined || name === values.device);
if (subjects.length === 0)
  usageError(`no device "${values.device}"; there are ${SUBJECTS.map(({ name }) => name).join(', ')}`);

for (const subject of subjects) {
  const fuzzer = await VirtioFuzzer.open(subject, seed);
  try {
    await fuzzer.run(Math.ceil(mutations / subjects.length));
    console.log(`${subject.name}: seed ${seed}, ${JSON.stringify(fuzzer.counts)}`);
  } catch (error) {
    console.error(`${subject.name}: seed ${seed} failed at mutation ${fuzzer.counts.mutations}`);
    console.error(error);
    process.exitCode = 1;
  } finally {
    fuzzer.close();
  }
}
