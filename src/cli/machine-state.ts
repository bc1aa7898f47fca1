/** How the states of machines look. */
import type { MachineInfo } from '../host/machine-info.js';
import type { Style } from './styled-text.js';

const STYLES: Partial<Record<MachineInfo['state'], Style>> = {
  running: 'good',
  paused: 'caution',
  unresponsive: 'bad',
  failed: 'bad',
  gone: 'bad',
};

/** Null: the state will soon be another one. */
export const styleOfState = (state: MachineInfo['state']): Style | null => STYLES[state] ?? null;
