/** Waiting for events of a device. */

import type { Device, DeviceEvent } from '../../src/index.ts';

/** Resolves to the next event of a type. Call it before what causes the event. */
export async function nextEvent<Type extends DeviceEvent['type']>(
  device: Pick<Device, 'events'>,
  type: Type,
): Promise<Extract<DeviceEvent, { type: Type }>> {
  const isWanted = (event: DeviceEvent): event is Extract<DeviceEvent, { type: Type }> => event.type === type;
  for await (const event of device.events()) if (isWanted(event)) return event;
  throw new Error(`the device was closed without an event ${type}`);
}
