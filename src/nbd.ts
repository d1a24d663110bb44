/**
 * NBD, the network block device protocol: serves devices to QEMU, the kernel and other clients, and reads any NBD
 * server as a source.
 *
 * @packageDocumentation
 */

export type { DeviceExtent } from './device/types.ts';
export type { CodErrorCode } from './errors.ts';
export type { NbdTls } from './nbd/client/connection.ts';
export { type NbdSourceOptions, nbdSource } from './nbd/client/source.ts';
export type {
  NbdClientMessage,
  NbdCommandMessage,
  NbdCommandName,
  NbdRefusedMessage,
} from './nbd/server/diagnostics.ts';
export type { NbdDevice, NbdExport } from './nbd/server/export.ts';
export type { NbdAddress } from './nbd/server/listener.ts';
export { type NbdServer, type NbdServerOptions, type NbdServiceOptions, serveNbd } from './nbd/server/server.ts';
export type { NbdTlsOptions } from './nbd/server/tls.ts';
export type { Clock } from './platform/clock.ts';
export type { Retry, RetryReport, StallLimits } from './sources/retry.ts';
export type { Source, SourceExtent } from './sources/source.ts';
