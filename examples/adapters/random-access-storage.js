import RandomAccessStorage from 'random-access-storage';

/** A device as a random-access-storage (3.0), for hypercore and other programs that store their data in one. */
export function randomAccessStorage(device) {
  const answer = (request, work) =>
    work().then(
      (value) => request.callback(null, value),
      (error) => request.callback(error),
    );
  // The size of a device is fixed.
  const check = ({ offset, size }) => {
    if (offset + size > device.size) throw new RangeError(`the device ends at byte ${device.size}`);
  };
  return new RandomAccessStorage({
    read: (request) =>
      answer(request, async () => {
        check(request);
        const bytes = new Uint8Array(request.size);
        await device.read(bytes, request.offset);
        return bytes;
      }),
    write: (request) =>
      answer(request, async () => {
        check(request);
        await device.write(request.data, request.offset);
      }),
    stat: (request) => answer(request, async () => ({ size: device.size })),
    // The device belongs to the caller, and stays open.
    close: (request) => answer(request, () => device.flush()),
  });
}
