import { openDevice } from 'copyondemand/browser';

const say = (text) => document.querySelector('output').append(text, document.createElement('br'));
const device = await openDevice({ source: new URLSearchParams(location.search).get('image'), target: 'disk.raw' });
const sector = new Uint8Array(512);
await device.read(sector, 0); // fetched on demand, ahead of the background copy
say(`The first bytes are ${sector.subarray(0, 8)}.`);
await device.write(sector, 1024); // survives this tab, and after a flush also a power cut
await device.flush();
await device.hydrated;
say(`All ${device.size} bytes are copied.`);
