/** Diagnostics channels of Node, Bun and Deno. In browsers there are none. */

/** A channel of `node:diagnostics_channel`. */
export interface Channel {
  readonly hasSubscribers: boolean;
  publish(message: unknown): void;
}

interface ChannelsModule {
  channel(name: string): Channel;
}

// Not imported, since this module is part of pages too.
const { process } = globalThis as {
  process?: { getBuiltinModule?(name: string): ChannelsModule | undefined };
};
const channels = process?.getBuiltinModule?.('diagnostics_channel');

/** Returns the channel `copyondemand:<name>`; undefined where there are none. */
export function channel(name: string): Channel | undefined {
  return channels?.channel(`copyondemand:${name}`);
}
