/** The one class that is used of undici, without the rest: its main module takes 100 ms more to load (Node 20, 2026). The version is pinned. */
declare module 'undici/lib/dispatcher/client.js' {
  import { Client } from 'undici';
  export default Client;
}
