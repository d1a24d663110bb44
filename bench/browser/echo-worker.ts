/** Sends each buffer back: what a message there and back costs by itself. */

addEventListener('message', ({ data }: MessageEvent<{ id: number; bytes: ArrayBuffer }>) => {
  postMessage(data, { transfer: [data.bytes] });
});
