/**
 * NBD, the network block device protocol: devices of copyondemand for QEMU, the kernel, and whoever else speaks it; and any NBD server as a source.
 *
 * @packageDocumentation
 */

export { type NbdSourceOptions, nbdSource } from './sources/nbd.ts';
