/**
 * The numbers of the NBD protocol, named as in its specification (NetworkBlockDevice/nbd, doc/proto.md). All are
 * big-endian on the wire.
 */

/**
 * Magic numbers. Those of the handshake have 64 bits and are `bigint`. Those of the transmission phase have 32 bits and
 * are `number`.
 */
export const MAGIC = {
  /** `NBDMAGIC`: the first bytes that a server sends. */
  init: 0x4e42444d41474943n,
  /** `IHAVEOPT`: announces newstyle, and begins each option. */
  option: 0x49484156454f5054n,
  optionReply: 0x3e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** Flags of the server in the handshake: 16 bits. */
export const HANDSHAKE_FLAG = { fixedNewstyle: 0x1, noZeroes: 0x2 } as const;

/** Flags of the client in the handshake: 32 bits. */
export const CLIENT_FLAG = { fixedNewstyle: 0x1, noZeroes: 0x2 } as const;

/** What an export supports: 16 bits. */
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

/** Options that a client sends in the handshake. */
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

/** Types of a server's reply to an option. Errors have bit 31 set. */
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

/** Kinds of information about an export. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Commands of the transmission phase. */
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

/** Flags of a command: 16 bits. */
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

/** Types of a structured reply's chunk. Errors have bit 15 set. */
export const REPLY_TYPE = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Error numbers of the transmission phase. */
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

/** The metadata context that the specification defines: which extents are allocated, and which read as zeros. */
export const BASE_ALLOCATION = 'base:allocation';

/** Flags of an extent in {@link BASE_ALLOCATION}. */
export const ALLOCATION_FLAG = { hole: 0x1, zero: 0x2 } as const;

/** This project's own metadata context: the state of each extent of the copy. */
export const COPY_STATE = 'copyondemand:state';

/** Status of an extent in {@link COPY_STATE}. `dirty`: unsynced and written in part. */
export const COPY_STATE_VALUE = { synced: 0, unsynced: 1, dirty: 2 } as const;

/** Which extents users modified since they were copied: 1, as in `qemu:dirty-bitmap`; all others: 0. */
export const MODIFIED_BLOCKS = 'copyondemand:modified';

/** Lengths on the wire in bytes: of a whole message, or of what precedes its payload. */
export const BYTES = {
  /** Both magic numbers and the flags. */
  serverGreeting: 18,
  clientFlags: 4,
  optionHeader: 16,
  optionReplyHeader: 20,
  /** Size and flags: the reply to `NBD_OPT_EXPORT_NAME`. */
  exportNameReply: 10,
  /** Zeros after that reply, which old clients expect. */
  exportNameZeroes: 124,
  request: 28,
  simpleReply: 16,
  structuredReplyHeader: 20,
} as const;

/** "A string length limit of 4096 bytes": for export names, metadata queries and error messages. */
export const MAX_STRING_BYTES = 4096;

/** The payload that each side may expect the other to accept by default: 32 MiB. */
export const DEFAULT_MAX_PAYLOAD_BYTES: number = 2 ** 25;

/** The port that IANA assigned. */
export const DEFAULT_PORT = 10_809;
