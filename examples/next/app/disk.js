import { openDevice } from 'copyondemand/browser';

/** Opens the image that the page's URL names, and tells what happens. Closes the device when `signal` is aborted. */
export async function showDisk(say, signal) {
  const source = new URLSearchParams(location.search).get('image');
  const device = await openDevice({ source, target: 'disk.raw', signal });
  signal.addEventListener('abort', () => device.close());
  const sector = new Uint8Array(512);
  await device.read(sector, 0); // fetched on demand, ahead of the background copy
  say(`The first bytes are ${sector.subarray(0, 8)}.`);
  await device.hydrated;
  say(`All ${device.size} bytes are copied.`);
}
