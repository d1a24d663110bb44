/**
 * The bytes of a device as a web stream, and as an object that is read like a `Blob`. For `Response`, `pipeTo`, and
 * readers of archives and file systems.
 *
 * @packageDocumentation
 */

/** What {@link readable} and {@link blobOf} use of a device. The sources of `copyondemand` have it too. */
export interface ReadableDevice {
  /** Bytes of the device. */
  readonly size: number;
  /** Fills `into` with the bytes from `offset` on. Rejects with the signal's reason when the signal is aborted. */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
}

/** Options of {@link readable}. */
export interface ReadableOptions {
  /** Offset of the first byte. Default: 0. */
  readonly start?: number;
  /** Offset after the last byte. Default: the size of the device. */
  readonly end?: number;
  /** Ends the stream with the signal's reason, and the read that is in flight. */
  readonly signal?: AbortSignal;
}

/**
 * A range of a device, with the members of a `Blob` that read it. It is no `Blob`: pass {@link DeviceBlob.stream} to a
 * `Response`. Each call reads the device as it is then. A call rejects with the error of the device's `read`.
 */
export interface DeviceBlob {
  /** Bytes of the range. */
  readonly size: number;
  /** The media type, `''` if it is unknown. */
  readonly type: string;
  /** Returns a part, without reading it. Offsets are those of `Blob`: clamped, negative ones from the end. */
  slice(start?: number, end?: number, type?: string): DeviceBlob;
  /** Returns a byte stream, as {@link readable}. */
  stream(): ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Reads all bytes. Rejects with a `RangeError` if there are more than 2^31 - 1: use {@link DeviceBlob.stream}. */
  arrayBuffer(): Promise<ArrayBuffer>;
  /** As {@link DeviceBlob.arrayBuffer}. */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** As {@link DeviceBlob.arrayBuffer}, decoded as UTF-8. */
  text(): Promise<string>;
}

/** Bytes of a chunk, unless the reader brings a buffer of its own. */
const CHUNK_BYTES = 2 ** 18;
/** The most bytes of one read, so that a large buffer fills step by step. */
const MAX_READ_BYTES = 2 ** 22;
/** The most bytes that {@link DeviceBlob.arrayBuffer} reads. */
const MAX_BUFFER_BYTES = 2 ** 31 - 1;

/**
 * Returns a byte stream of a range. It reads when its consumer asks, nothing ahead, and takes the consumer's buffers
 * (`getReader({ mode: 'byob' })`). Cancelling it aborts the read that is in flight. It ends with the error of a read
 * that fails.
 *
 * @throws `RangeError` when the range is not within the device.
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { readable } from 'copyondemand/streams';
 *
 * const source = bytesSource(new TextEncoder().encode('the image'));
 * const device = await openDevice({ source, fileSystem: memfsFileSystem(), target: '/disk.raw' });
 * console.log(await new Response(readable(device, { start: 4 })).text()); // image
 * await device.close();
 * ```
 */
export function readable(
  device: ReadableDevice,
  options: ReadableOptions = {},
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const { start = 0, end = device.size, signal } = options;
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start > end || end > device.size)
    throw new RangeError(`bytes [${start}, ${end}) are not within the device (${device.size} bytes)`);
  /** Aborted at the end of the stream, whatever ends it. */
  const over = new AbortController();
  let at = start;
  return new ReadableStream({
    type: 'bytes',
    autoAllocateChunkSize: CHUNK_BYTES,
    start(controller) {
      const abort = (): void => {
        over.abort(signal?.reason);
        controller.error(signal?.reason);
      };
      if (signal?.aborted) abort();
      else if (start === end) controller.close();
      else signal?.addEventListener('abort', abort, { signal: over.signal });
    },
    async pull(controller) {
      // The stream makes a request for each read, because it allocates the buffer of a reader without one.
      const request = controller.byobRequest!;
      const { buffer, byteOffset, byteLength } = request.view!;
      const into = new Uint8Array(buffer, byteOffset, Math.min(byteLength, MAX_READ_BYTES, end - at));
      try {
        await device.read(into, at, { signal: over.signal });
      } catch (error) {
        over.abort(error);
        throw error;
      }
      if (over.signal.aborted) return;
      at += into.length;
      request.respond(into.length);
      if (at < end) return;
      over.abort();
      controller.close();
    },
    cancel(reason) {
      over.abort(reason);
    },
  });
}

/**
 * Returns the device as an object that is read like a `Blob`, for programs that take one.
 *
 * @param options.type the media type. Default: `''`
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { blobOf } from 'copyondemand/streams';
 *
 * const source = bytesSource(new TextEncoder().encode('the image'));
 * const device = await openDevice({ source, fileSystem: memfsFileSystem(), target: '/disk.raw' });
 * console.log(await blobOf(device).slice(-5).text()); // image
 * await device.close();
 * ```
 */
export function blobOf(device: ReadableDevice, options: { readonly type?: string } = {}): DeviceBlob {
  return new RangeBlob(device, { start: 0, end: device.size }, options.type ?? '');
}

class RangeBlob implements DeviceBlob {
  readonly size: number;
  readonly type: string;
  readonly #device: ReadableDevice;
  readonly #start: number;

  constructor(device: ReadableDevice, { start, end }: { start: number; end: number }, type: string) {
    this.#device = device;
    this.#start = start;
    this.size = end - start;
    this.type = type;
  }

  slice(start: number = 0, end: number = this.size, type: string = ''): DeviceBlob {
    const [from, to] = [this.#clamped(start), this.#clamped(end)];
    return new RangeBlob(this.#device, { start: this.#start + from, end: this.#start + Math.max(from, to) }, type);
  }

  stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return readable(this.#device, { start: this.#start, end: this.#start + this.size });
  }

  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.size > MAX_BUFFER_BYTES)
      throw new RangeError(`${this.size} bytes are too many for one buffer: read a slice, or the stream`);
    const bytes = new Uint8Array(this.size);
    await this.#device.read(bytes, this.#start);
    return bytes;
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer;
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** An offset within the range, as `Blob` takes it. */
  #clamped(offset: number): number {
    const whole = Math.trunc(offset) || 0;
    return whole < 0 ? Math.max(this.size + whole, 0) : Math.min(whole, this.size);
  }
}
