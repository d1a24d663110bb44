/** `#http-transport` in browsers, and wherever else the condition `node` is not set. */

export { fetchTransport as platformTransport } from './fetch-transport.ts';
