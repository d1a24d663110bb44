/**
 * NBD, the network block device protocol: devices of copyondemand for QEMU, the kernel, and whoever else speaks it; and any NBD server as a source.
 *
 * @packageDocumentation
 */

export type { NbdDevice, NbdExport } from './nbd/export.ts';
export type { NbdAddress } from './nbd/listener.ts';
export { type NbdServer, type NbdServerOptions, type NbdServiceOptions, serveNbd } from './nbd/server.ts';
export type { NbdTlsOptions } from './nbd/tls.ts';
export { type NbdSourceOptions, nbdSource } from './sources/nbd.ts';
