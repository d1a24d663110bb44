/** `#http-transport` in browsers, and wherever the condition `node` is not set. */

export { fetchTransport as platformTransport } from './fetch-transport.ts';
