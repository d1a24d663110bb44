/** Messages between the demo and its worker process. */

import type { CodErrorJson } from '../../errors.ts';
import type { Cell } from '../map-picture.ts';

/** Number of cells of the map that the worker draws. */
export const MAP_CELLS = 64;

/** From the demo to the worker. */
export type Request = { readonly id: number } & (
  | { readonly call: 'read'; readonly offset: number; readonly length: number }
  | { readonly call: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly call: 'flush' }
);

/** The progress of the copy. */
export interface State {
  /** Bytes that the target holds. */
  readonly copiedBytes: number;
  readonly size: number;
  readonly cells: readonly Cell[];
}

/** From the worker to the demo. */
export type Message =
  | { readonly event: 'open'; readonly state: State }
  | { readonly event: 'state'; readonly state: State }
  | { readonly event: 'answer'; readonly id: number; readonly bytes?: Uint8Array; readonly ms: number }
  | {
      readonly event: 'failed';
      readonly id?: number;
      readonly error: CodErrorJson | { readonly name: string; readonly message: string };
    }
  | { readonly event: 'finished' };
