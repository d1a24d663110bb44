/** Returns each buffer, to measure the cost of a message to a worker and back. */

addEventListener('message', ({ data }: MessageEvent<{ id: number; bytes: ArrayBuffer }>) => {
  postMessage(data, { transfer: [data.bytes] });
});
