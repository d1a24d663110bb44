import { constants, Index, IndexFS, Inode, InodeFlags } from '@zenfs/core';
import { withErrno } from 'kerium';

/** A backend of ZenFS (2.7) with one file, `disk.raw`: the device. Use the calls that return promises. */
export const DeviceBackend = {
  name: 'Device',
  options: { device: { type: 'object', required: true } },
  create: ({ device }) => new DeviceFS(device),
};

const refuse = (code) => () => {
  throw withErrno(code);
};

class DeviceFS extends IndexFS {
  constructor(device) {
    const index = new Index();
    index.set('/', new Inode({ ino: 1, data: 1, mode: constants.S_IFDIR | 0o555 }));
    // DAX: ZenFS keeps nothing in memory, and writes at once.
    const disk = { size: device.size, mode: constants.S_IFREG | 0o666, flags: InodeFlags.DAX };
    index.set('/disk.raw', new Inode({ ino: 2, data: 2, ...disk }));
    super(0x636f64, 'copyondemand', index);
    this.device = device;
    this.attributes.set('no_atime');
  }

  async read(_path, buffer, start, end) {
    await this.device.read(buffer.subarray(0, end - start), start);
  }

  async write(_path, buffer, offset) {
    if (offset + buffer.length > this.device.size) throw withErrno('ENOSPC');
    await this.device.write(buffer, offset);
  }

  /** ZenFS calls this for `sync` and `close` of a file that was written to. */
  async touch(path, metadata) {
    if ((metadata.size ?? this.device.size) !== this.device.size) throw withErrno('EPERM');
    await super.touch(path, metadata);
    await this.device.flush();
  }

  create = refuse('EROFS');
  pathsForRename = refuse('EROFS');
  _remove = refuse('EROFS');
  readSync = refuse('EAGAIN');
  writeSync = refuse('EAGAIN');
}
