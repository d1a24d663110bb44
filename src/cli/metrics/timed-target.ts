/** Times the calls on the file of a target, for the metrics. Without metrics, the file is used as it is. */

import { type Channel, channel } from 'node:diagnostics_channel';
import { type Done, ending, type MaybePromise } from '../../async/done.ts';
import type { FileSystem } from '../../fs/file-system.ts';
import type { InlineFile } from '../../fs/inline-file.ts';

/** A message of {@link TARGET_CALLS}: a call on the file of a target has ended. */
export interface TargetMessage {
  readonly target: string;
  readonly call: 'read' | 'write' | 'sync';
  /** Bytes of the call; 0 for `sync`. */
  readonly bytes: number;
  /** Milliseconds. */
  readonly durationMs: number;
}

export const TARGET_CALLS: Channel = channel('copyondemand:target');

/** Returns a file system whose file `target` is timed, if something subscribes to {@link TARGET_CALLS}. */
export function timedTarget(fileSystem: FileSystem, target: string): FileSystem {
  if (!TARGET_CALLS.hasSubscribers) return fileSystem;
  return {
    ...fileSystem,
    open: async (name, how) => {
      const file = await fileSystem.open(name, how);
      return name === target ? timedFile(file, target) : file;
    },
  };
}

function timedFile(file: InlineFile, target: string): InlineFile {
  const timed = <T>(call: TargetMessage['call'], bytes: number, task: () => MaybePromise<T>): MaybePromise<T> => {
    const startMs = performance.now();
    return ending(task, () => {
      const message: TargetMessage = { target, call, bytes, durationMs: performance.now() - startMs };
      TARGET_CALLS.publish(message);
    });
  };
  const { submitRead, submitWrite, deviceContents } = file;
  return {
    size: () => file.size(),
    read: async (into, offset) => timed('read', into.length, () => file.read(into, offset)),
    write: async (from, offset) => timed('write', from.length, () => file.write(from, offset)),
    truncate: (size) => file.truncate(size),
    sync: async () => timed('sync', 0, () => file.sync()),
    close: () => file.close(),
    get preferredWriteBytes() {
      return file.preferredWriteBytes;
    },
    pace: () => file.pace?.(),
    ...(submitRead && {
      submitRead: (into: Uint8Array, offset: number) =>
        timed('read', into.length, () => submitRead.call(file, into, offset)) as Done,
    }),
    ...(submitWrite && {
      submitWrite: (from: Uint8Array, offset: number) =>
        timed('write', from.length, () => submitWrite.call(file, from, offset)) as Done,
    }),
    ...(deviceContents && { deviceContents: deviceContents.bind(file) }),
  };
}
