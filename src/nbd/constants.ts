/**
 * The numbers of the NBD protocol, by the names of its specification (NetworkBlockDevice/nbd, doc/proto.md). All of them go big-endian
 * over the wire.
 */

/** Magic numbers. Those of 64 bits, of the handshake, are `bigint`; those of 32 bits, of the transmission phase, are `number`. */
export const MAGIC = {
  /** `NBDMAGIC`: the first thing that a server says. */
  init: 0x4e42444d41474943n,
  /** `IHAVEOPT`: newstyle, and the head of each option. */
  option: 0x49484156454f5054n,
  optionReply: 0x3e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** What a server says of itself in the handshake: 16 bits. */
export const HANDSHAKE_FLAG = { fixedNewstyle: 0x1, noZeroes: 0x2 } as const;

/** What a client answers to that: 32 bits. */
export const CLIENT_FLAG = { fixedNewstyle: 0x1, noZeroes: 0x2 } as const;

/** What an export can do: 16 bits. */
export const TRANSMISSION_FLAG = {
  hasFlags: 0x1,
  readOnly: 0x2,
  sendFlush: 0x4,
  sendFua: 0x8,
  rotational: 0x10,
  sendTrim: 0x20,
  sendWriteZeroes: 0x40,
  sendDf: 0x80,
  canMultiConn: 0x100,
  sendResize: 0x200,
  sendCache: 0x400,
  sendFastZero: 0x800,
} as const;

/** What a client asks for in the handshake. */
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  starttls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** What a server answers to an option; errors have bit 31 set. */
export const OPTION_REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsup: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errPlatform: 0x80000004,
  errTlsReqd: 0x80000005,
  errUnknown: 0x80000006,
  errShutdown: 0x80000007,
  errBlockSizeReqd: 0x80000008,
  errTooBig: 0x80000009,
} as const;

/** The kinds of information about an export. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What a client asks for in the transmission phase. */
export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  resize: 8,
} as const;

/** How it is to be done: 16 bits. */
export const COMMAND_FLAG = {
  fua: 0x1,
  noHole: 0x2,
  df: 0x4,
  reqOne: 0x8,
  fastZero: 0x10,
  payloadLength: 0x20,
} as const;

/** Flags of a structured reply's chunk. */
export const REPLY_FLAG = { done: 0x1 } as const;

/** Types of a structured reply's chunk; errors have bit 15 set. */
export const REPLY_TYPE = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Errors in the transmission phase. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** The metadata context that the specification defines: what is allocated, and what reads as zeros. */
export const BASE_ALLOCATION = 'base:allocation';

/** Flags of an extent in {@link BASE_ALLOCATION}. */
export const ALLOCATION_FLAG = { hole: 0x1, zero: 0x2 } as const;

/** This project's own metadata context: how far the copy is. */
export const COPY_STATE = 'copyondemand:state';

/** What an extent is in {@link COPY_STATE}: copied; unsynced; unsynced and written in part. */
export const COPY_STATE_VALUE = { synced: 0, unsynced: 1, dirty: 2 } as const;

/** Lengths on the wire, in bytes: of whole messages, or of what is before their payload. */
export const BYTES = {
  /** Both magic numbers and the flags. */
  serverGreeting: 18,
  clientFlags: 4,
  optionHeader: 16,
  optionReplyHeader: 20,
  /** Size and flags, after `NBD_OPT_EXPORT_NAME`, and the zeros that old clients expect behind them. */
  exportNameReply: 10,
  exportNameZeroes: 124,
  request: 28,
  simpleReply: 16,
  structuredReplyHeader: 20,
} as const;

/** "A string length limit of 4096 bytes": names of exports, queries of metadata, messages of errors. */
export const MAX_STRING_BYTES = 4096;

/** The payload that each side may expect the other to take where nothing else was said: 32 MiB. */
export const DEFAULT_MAX_PAYLOAD_BYTES: number = 2 ** 25;

/** IANA's port. */
export const DEFAULT_PORT = 10_809;
