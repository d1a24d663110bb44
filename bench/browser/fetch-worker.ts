/**
 * Fetches a URL into a file of the origin private file system, without any library. Posts the number of bytes when the
 * file is durable.
 */

interface SyncAccessHandle {
  write(from: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}

addEventListener('message', ({ data }: MessageEvent<{ url: string; name: string; pieceBytes: number | undefined }>) => {
  void (async () => {
    const { url, name, pieceBytes } = data;
    const root = await navigator.storage.getDirectory();
    const file = (await root.getFileHandle(name, { create: true })) as unknown as {
      createSyncAccessHandle(): Promise<SyncAccessHandle>;
    };
    const handle = await file.createSyncAccessHandle();
    const body = (await fetch(url, { cache: 'no-store' })).body!;
    let at = 0;
    if (pieceBytes === undefined) {
      const reader = body.getReader();
      for (let { value } = await reader.read(); value !== undefined; { value } = await reader.read())
        at += handle.write(value, { at });
    } else {
      const reader = body.getReader({ mode: 'byob' });
      let buffer = new ArrayBuffer(pieceBytes);
      for (;;) {
        const { value, done } = await reader.read(new Uint8Array(buffer));
        if (done) break;
        at += handle.write(value, { at });
        buffer = value.buffer as ArrayBuffer;
      }
    }
    handle.flush();
    handle.close();
    postMessage(at);
  })();
});
