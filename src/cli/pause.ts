import { stateVerb } from './state-verb.js';

export const verb = stateVerb('pause');
