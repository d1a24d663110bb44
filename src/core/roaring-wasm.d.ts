/**
 * The build of roaring-wasm that contains its WebAssembly module. It runs in Node and in browsers, bundled or not.
 * The build for Node reads `index.wasm` from its own folder, which is missing in a bundled Node service.
 * The package declares no types for this path.
 */
declare module 'roaring-wasm/browser' {
  export * from 'roaring-wasm';
}
