/** Open files that pass from one process to another, over a Unix socket (unix(7), SCM_RIGHTS). */
import { addon } from './addon.js';

interface PassedFileFunctions {
  sendFiles(socket: number, fds: readonly number[]): void;
  receiveFiles(socket: number, count: number): number[];
  replaceFile(fd: number, target: number): void;
}

/** Sends open files. The other process gets descriptors of its own. Errors: SystemError. */
export const sendFiles = (socket: number, fds: readonly number[]): void =>
  addon<PassedFileFunctions>().sendFiles(socket, fds);

/** Returns the descriptors of `count` files that were sent, without waiting. Errors: SystemError. */
export const receiveFiles = (socket: number, count: number): number[] =>
  addon<PassedFileFunctions>().receiveFiles(socket, count);

/** Makes `target` a descriptor of the same open file as `fd`, whatever it was (dup2). Errors: SystemError. */
export const replaceFile = (fd: number, target: number): void =>
  addon<PassedFileFunctions>().replaceFile(fd, target);
