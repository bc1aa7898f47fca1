/** The public interface of the library (docs/library.md). */
export type { ErrorCode, PlainError } from '../errors.js';
export { LivesnapError } from '../errors.js';
export type { Labels } from '../labels.js';
export type { EndReport, MachineDescription, StopResult } from '../machine/control-api.js';
export type { Progress, SnapshotSummary } from '../page-stream.js';
export type { CopyPlan, CopyResult } from '../store/copy/copy-result.js';
export type { GcResult } from '../store/gc/gc.js';
export type { CopyAllResult } from '../store/remote/copy-all.js';
export {
  PageClass,
  type PageMap,
  type Problem,
  type RegionDifference,
  type RemovedSnapshot,
  type RepairResult,
  type SnapshotDetails,
  type StoreStats,
  type Tag,
  type TaggedSnapshot,
} from '../store/types.js';
export type { MachineSaveResult, MachineState } from '../vmm/machine-types.js';
export type { CallOptions, LongCallOptions } from './call-options.js';
export { type ConnectOptions, connect } from './connect.js';
export type { Console, ConsoleOptions, WaitForOptions } from './console.js';
export type { ForgetGroup, GroupKey, KeepRules } from './forget-policy.js';
export type { Forked, ForkOptions, Host } from './host.js';
export type { EventOptions, HostEvent } from './host-events.js';
export type { HostChange, MachineFacts } from './host-state.js';
export type { Machine, SaveOptions, StopOptions } from './machine.js';
export type { MachineFilter, MachineInfo } from './machine-info.js';
export type { DiskOptions, RestoreOptions, StartOptions } from './machine-options.js';
export type { Snapshot } from './snapshot.js';
export {
  parseSnapshotFilter,
  type SnapshotChoice,
  type SnapshotFilter,
  type SnapshotOrder,
} from './snapshot-filter.js';
export type { SnapshotStore } from './snapshot-store.js';
export type {
  CheckOptions,
  CheckResult,
  CopyAllOptions,
  CopyOptions,
  CopyRemote,
  DiffOperand,
  FileName,
  ForgetOptions,
  GcOptions,
  ListOptions,
  MapOptions,
  PutOptions,
  PutResult,
  TransferOptions,
} from './store-verbs.js';
